"""The periodic work on virtual time: a slow replica is found and told, silent ones are marked, new configurations watched."""

import asyncio
import random
from collections.abc import Iterable
from typing import Any

from halffull.api.model_deployment import ModelDeployment
from halffull.controller.endpoints import Endpoint
from halffull.controller.facts import RouterAnswer
from halffull.controller.metrics import Metrics
from halffull.controller.names import Key
from halffull.controller.observed import Observed
from halffull.controller.records import Record, Records
from halffull.controller.rounds import Rounds
from halffull.controller.router_config import router_config
from halffull.core.balance import Mark
from halffull.core.values import Signals
from virtual_time import on_virtual_time

KEY = Key("n", "d")
SPEC = {"model": "m", "engine": {"type": "vllm", "endpoints": ["fast:1", "slow:1", "mute:1"]}}
DOCUMENT = {"metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 1}, "spec": SPEC}
RATES = {"fast:1": 1000.0, "slow:1": 400.0}
"""tokens per second"""


class Fleet:
    """In place of HTTP: three engines, of which one says nothing, and a router that takes a while to apply."""

    def __init__(self) -> None:
        self.router_asked: list[float] = []
        self.engines_asked: list[float] = []
        self.applied = "old"
        self.queue: Any = {}

    async def engines(self, endpoints: Iterable[Endpoint], *_: Any) -> dict[str, Signals]:
        now = asyncio.get_running_loop().time()
        self.engines_asked.append(now)
        return {
            e.name: Signals(running=8, waiting=1, kv_usage=0.5, prompt_tokens=1e3 * now, generation_tokens=rate * now)
            for e in endpoints
            if (rate := RATES.get(e.name))
        }

    async def routers(self, endpoints: Iterable[Endpoint], *_: Any) -> dict[str, RouterAnswer]:
        self.router_asked.append(asyncio.get_running_loop().time())
        return {
            e.name: RouterAnswer({"config": {"hash": self.applied}, "queue": self.queue, "replicas": []})
            for e in endpoints
        }


def parts(fleet: Fleet, woken: list[float]) -> tuple[Rounds, Record]:
    observed, records = Observed(), Records()
    observed.saw_deployment(None, {**DOCUMENT, "kind": "ModelDeployment"})
    observed.saw_slice(None, peers())
    record = records.of(KEY, "u")
    record.config = router_config(ModelDeployment.model_validate(DOCUMENT))
    rounds = Rounds(
        observed,
        records,
        fleet,  # type: ignore[arg-type]
        wake=lambda _: woken.append(asyncio.get_running_loop().time()),
        metrics=Metrics(),
        rng=random.Random(1),
    )
    return rounds, record


def peers() -> dict[str, Any]:
    labels = {"halffull.dev/model-deployment": "d", "kubernetes.io/service-name": "d-peers"}
    return {
        "metadata": {"name": "s", "namespace": "n", "labels": labels},
        "ports": [{"name": "admin", "port": 8101}],
        "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "r"}}],
    }


@on_virtual_time
async def test_a_slow_replica_is_found_by_its_counters() -> None:
    fleet, woken = Fleet(), []
    rounds, record = parts(fleet, woken)
    fleet.applied = record.config.hash if record.config else ""

    rounds.follow(KEY)
    await asyncio.sleep(120)
    rounds.stop()

    assert record.decision is not None
    assert record.decision.weights["fast:1"] == 1.0
    assert record.decision.weights["slow:1"] < 0.9
    assert record.decision.marks["mute:1"] is Mark.NONE
    assert record.decision.speeds["mute:1"] is None
    assert [change.replica for change in record.changes] == ["slow:1"]
    assert len(woken) == len(fleet.engines_asked)
    assert 120 / 5 / 1.2 <= len(fleet.engines_asked) <= 120 / 5 * 1.2


@on_virtual_time
async def test_routers_are_asked_soon_until_they_have_applied() -> None:
    fleet, woken = Fleet(), []
    rounds, record = parts(fleet, woken)

    rounds.follow(KEY)
    await asyncio.sleep(1)
    asked = list(fleet.router_asked)
    assert len(asked) == 5  # at once, then after 0.05, 0.15, 0.35 and 0.75 s
    assert len(fleet.engines_asked) == 1  # engines are spared

    fleet.applied = record.config.hash if record.config else ""
    before = len(woken)
    await asyncio.sleep(1.5)
    assert len(woken) == before + 1
    assert record.answers["r"].config["hash"] == fleet.applied
    count = len(fleet.router_asked)
    await asyncio.sleep(1)
    assert len(fleet.router_asked) == count  # nothing more to wait for
    rounds.stop()


@on_virtual_time
async def test_a_loop_ends_with_its_record() -> None:
    fleet, woken = Fleet(), []
    rounds, record = parts(fleet, woken)
    rounds.follow(KEY)
    await asyncio.sleep(1)

    rounds.leave(KEY)
    count = len(fleet.engines_asked)
    await asyncio.sleep(60)

    assert len(fleet.engines_asked) == count
    rounds.follow(KEY)
    await asyncio.sleep(1)
    record.config = None
    await asyncio.sleep(60)
    assert len(fleet.engines_asked) == count + 1


@on_virtual_time
async def test_what_the_load_asks_for_is_known_after_each_round() -> None:
    fleet, woken = Fleet(), []
    rounds, record = parts(fleet, woken)
    rounds.follow(KEY)
    await asyncio.sleep(60)
    rounds.stop()

    assert (
        record.demand.samples[-1].demand == 1 + 2 / 8
    )  # two engines half full, a request each that waits to eight that run
    assert record.demand.desired == 3  # fewer might do, but one engine does not tell


@on_virtual_time
async def test_a_router_that_says_nonsense_costs_a_round_and_not_all_that_follow() -> None:
    fleet, woken = Fleet(), []
    rounds, record = parts(fleet, woken)
    fleet.queue = ["not", "an", "object"]
    rounds.follow(KEY)
    await asyncio.sleep(30)
    assert record.decision is not None, "the replicas were weighed"
    assert record.demand.desired is None

    fleet.queue = {"requests": 0}
    await asyncio.sleep(30)
    rounds.stop()

    assert record.demand.desired == 3
