"""What `halffull up` does with a ModelDeployment that is added and does not start."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from halffull.local.deployment import Deployment
from halffull.local.machine import Machine
from halffull.local.process import StartError

KEY = ("default", "added")


class Failing:
    """In place of a ModelDeployment."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.stopped = False

    async def start(self) -> None:
        raise self._error

    async def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize("error", [StartError("its router did not serve"), OSError(28, "No space left on device")])
def test_what_does_not_start_is_told_and_taken_away_until_the_next_edit(tmp_path: Path, error: Exception) -> None:
    said: list[str] = []

    async def run() -> Failing:
        machine = Machine([tmp_path / "f.yaml"], host="127.0.0.1", port=0, admin_port=0, say=said.append)
        added = Failing(error)
        machine._deployments[KEY] = cast(Deployment, added)
        await machine._add(KEY, lambda _: said.append("serves"))
        await asyncio.gather(*machine._ends)
        assert machine.deployments == {}
        machine._folder.cleanup()
        return added

    assert asyncio.run(run()).stopped
    assert said == [f"added does not start: {error}"]
