"""What becomes of a replica that is out when the look at it fails for a fault of ours."""

import asyncio
import errno

import pytest

from halffull.api.router_config import EngineTarget
from halffull.core.dispatch import Transition
from halffull.core.health import Verdict
from halffull.engines.catalog import ENGINES
from halffull.router.http.exhausted import ExhaustedError
from halffull.router.signals.inspector import Inspector
from halffull.router.signals.scrape import Plan
from halffull.router.sources.engine_client import EngineClient
from in_memory import World
from virtual_time import on_virtual_time


class Client(EngineClient):
    """Asks an engine that is well; fails at first as no engine can make it fail."""

    asked = 0

    async def get(self, address: str, path: str, limit_s: float) -> tuple[int, bytes]:
        self.asked += 1
        if self.asked == 1:
            raise KeyError("a bug")
        return 200, b""


@on_virtual_time
async def test_a_look_that_fails_in_an_unexpected_way_is_taken_again(caplog: pytest.LogCaptureFixture) -> None:
    world, now = World(), asyncio.get_running_loop().time
    plan = Plan(Client(EngineTarget(), now), ENGINES["vllm"])
    inspector = Inspector(world.proxy, lambda: plan, now)
    world.proxy.dispatcher.judged(world.replica, now(), alive=False, why="it hangs")

    inspector.take()
    await asyncio.sleep(30)

    assert world.replica.health.verdict is Verdict.TRIAL
    assert "a bug" in caplog.text
    inspector.close()


@on_virtual_time
async def test_a_look_for_which_this_process_has_no_file_says_nothing_of_the_engine() -> None:
    class Starved(Client):
        async def get(self, address: str, path: str, limit_s: float) -> tuple[int, bytes]:
            self.asked += 1
            if self.asked < 4:
                raise ExhaustedError(errno.EMFILE, "Too many open files")
            return 200, b""

    world, now = World(), asyncio.get_running_loop().time
    plan = Plan(Starved(EngineTarget(), now), ENGINES["vllm"])
    inspector = Inspector(world.proxy, lambda: plan, now)
    world.replica.health.verdict = Verdict.SUSPECT
    world.proxy.dispatcher.transitions.append(Transition(world.replica, Verdict.SUSPECT, "it fell silent"))

    inspector.take()
    await asyncio.sleep(30)
    inspector.take()

    assert world.replica.health.verdict is Verdict.WELL
    assert world.proxy.telemetry.verdicts == {("r0", "suspect"): 1, ("r0", "well"): 1}
    inspector.close()
