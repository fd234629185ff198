"""Recording requests in a cluster: the routers hear of it, and their volume has room."""

from typing import Any

import pytest

from halffull.api.model_deployment import ModelDeployment
from halffull.controller.child import Settings
from halffull.controller.router_config import router_config
from halffull.controller.routers import deployment


def owner(**router: Any) -> ModelDeployment:
    spec = {"model": "m", "engine": {"selector": {"matchLabels": {"app": "x"}}}, "router": router}
    metadata = {"name": "d", "namespace": "n", "uid": "u", "generation": 1}
    return ModelDeployment.model_validate({"metadata": metadata, "spec": spec})


def pods(**router: Any) -> dict[str, Any]:
    made: dict[str, Any] = deployment(owner(**router), Settings("halffull:1", patch_adopted=True))
    template: dict[str, Any] = made["spec"]["template"]
    return template


def room(template: dict[str, Any]) -> str:
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    size: str = volumes["halffull-state"]["emptyDir"]["sizeLimit"]
    return size


def test_routers_hear_of_it() -> None:
    assert router_config(owner()).router.record is None
    config = router_config(owner(record={}))
    assert config.router.record is not None
    assert config.router.record.max_bytes == 32 << 20
    assert config.hash != router_config(owner()).hash


def test_the_usual_recording_restarts_no_router() -> None:
    assert pods(record={}) == pods()


@pytest.mark.parametrize(
    ("router", "size"),
    [
        ({}, "64Mi"),
        ({"record": {"maxBytes": 100 << 20}}, "132Mi"),
        ({"record": {}, "workers": 4}, "160Mi"),
        ({"record": {"maxBytes": (32 << 20) + 1}}, "65Mi"),
    ],
)
def test_a_larger_one_gets_a_larger_volume(router: dict[str, Any], size: str) -> None:
    assert room(pods(**router)) == size
