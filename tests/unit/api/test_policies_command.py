"""`halffull policies`: everything of the catalogs is listed, and each name tells its advice and its parameters."""

import json

import pytest

from halffull import cli
from halffull.core.gate import GATES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES

NAMES = [*POLICIES, *ORDERINGS, *GATES]


def test_the_list_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policies"]) == 0
    shown = capsys.readouterr().out

    assert all(f"  {name} " in shown for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_its_parameters(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policies", name]) == 0
    shown = capsys.readouterr().out
    cli.main(["policies", name, "--json"])
    (entry,) = json.loads(capsys.readouterr().out)

    assert entry["summary"] in shown
    for parameter, schema in entry.get("parameters", {}).items():
        assert f"parameters.{entry['block']}.{parameter} (default " in shown
        assert schema["description"], parameter


@pytest.mark.parametrize("name", [*POLICIES, *ORDERINGS])
def test_every_choice_says_its_intent_and_when_to_use_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["policies", name, "--json"])
    (entry,) = json.loads(capsys.readouterr().out)

    assert entry["description"].startswith("Intent: ")
    for part in ("Inputs: ", "Cost: "):
        assert part in " ".join(entry["description"].split())
    if name != "fcfs":
        assert "Use it" in entry["description"]


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["policies", "best"])

    assert "invalid choice" in capsys.readouterr().err
