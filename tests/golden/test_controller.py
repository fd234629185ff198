"""The operator's pure steps, pinned: NAME.in.yaml (resources and facts) -> NAME.out.yaml (children and status).

`UPDATE_GOLDEN=1 pytest tests/golden` writes the outputs anew; read the difference before you commit it. A case is a file.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from halffull.api.model_deployment import ModelDeployment, SchedulingPolicy
from halffull.api.router_config import Balance
from halffull.controller.child import Settings
from halffull.controller.desired import desired
from halffull.controller.endpoints import Endpoint
from halffull.controller.facts import Facts, Notes, RouterAnswer
from halffull.controller.router_config import router_config
from halffull.controller.sidecar import injection
from halffull.controller.status import status
from halffull.core.balance import Mark
from halffull.core.values import Signals

FOLDER = Path(__file__).parent / "controller"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml"))
NOW = "2026-01-01T00:00:00Z"
SETTINGS = Settings("halffull:1", patch_adopted=True)


def answer(told: Any, hash_: str) -> RouterAnswer:
    """What a router says; `applied: true` stands for the hash of this very configuration."""
    if isinstance(told, str):
        return RouterAnswer(error=told)
    document = dict(told)
    if document.pop("applied", False):
        document["config"] = {"hash": hash_, "error": None}
    return RouterAnswer(document)


def facts(document: dict[str, Any], hash_: str) -> Facts:
    return Facts(
        engines=tuple(Endpoint(**row) for row in document.get("engines", ())),
        routers=tuple(Endpoint(**row) for row in document.get("routers", ())),
        signals={name: Signals(**row) for name, row in document.get("signals", {}).items()},
        marks={name: Mark(mark) for name, mark in document.get("marks", {}).items()},
        speeds=document.get("speeds", {}),
        answers={name: answer(told, hash_) for name, told in document.get("answers", {}).items()},
        engine_pods=document.get("enginePods"),
    )


def result(case: dict[str, Any]) -> dict[str, Any]:
    """All that the operator makes of one case."""
    owner = ModelDeployment.model_validate(case["modelDeployment"])
    policy = SchedulingPolicy.model_validate(case["schedulingPolicy"]) if "schedulingPolicy" in case else None
    balance = Balance.model_validate(case["balance"]) if "balance" in case else None
    config = router_config(owner, policy, None, balance, engine_args=case.get("engineArgs", ()))
    children = [json.loads(json.dumps(child)) for child in desired(owner, config, SETTINGS)]
    for child in children:
        if child["kind"] == "ConfigMap":  # the document reads better than its text, and without the schema's defaults
            child["data"]["router.json"] = config.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    told = case.get("notes", {})
    notes = Notes(
        policy=tuple(told["policy"]) if "policy" in told else None,
        sidecar=told.get("sidecar", ""),
        taken=tuple(told.get("taken", ())),
        sharers=tuple(told.get("sharers", ())),
    )
    previous = case["modelDeployment"].get("status", {})
    made = status(owner, config, facts(case.get("facts", {}), config.hash), notes, previous=previous, now=NOW)
    out = {"children": children, "status": made.dump()}
    if "workload" in case:
        out["injection"] = injection(owner, case["workload"], SETTINGS)
    return json.loads(json.dumps(out).replace(config.hash, "HASH"))


@pytest.mark.parametrize("name", CASES)
def test_controller_makes_what_is_pinned(name: str) -> None:
    case = yaml.safe_load((FOLDER / f"{name}.in.yaml").read_text())
    pinned = FOLDER / f"{name}.out.yaml"

    made = result(case)

    if os.environ.get("UPDATE_GOLDEN"):
        pinned.write_text(yaml.safe_dump(made, sort_keys=False, width=120))
    assert yaml.safe_load(pinned.read_text()) == made


def test_every_output_has_an_input() -> None:
    assert [path.name.removesuffix(".out.yaml") for path in sorted(FOLDER.glob("*.out.yaml"))] == CASES
