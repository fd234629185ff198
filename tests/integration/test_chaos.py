"""The most telling scenarios of `make chaos`, as short as each tells something: every answer right to the last byte."""

from importlib import import_module
from pathlib import Path

import pytest

from chaos.record import Record, table
from chaos.stage import Stage

SCENARIOS = ("busy", "disk-full", "kill-half", "mute-in-stream", "restart-routers")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_short_scenario_reaches_its_goals(name: str, tmp_path: Path) -> None:
    record = Record(name, "", short=True)
    await import_module(f"chaos.scenarios.{name.replace('-', '_')}").play(Stage(tmp_path), record)
    assert record.good, table([record.document()])
