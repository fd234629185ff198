"""One ModelDeployment of `halffull up`: what its router is told, where that cannot be written, and while nothing changes."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from halffull.api.model_deployment import ModelDeployment
from halffull.api.router_config import Balance, ReplicaBalance
from halffull.local.deployment import Deployment
from halffull.local.documents import Wanted
from halffull.local.process import Guard
from virtual_time import on_virtual_time


def wanted(policy: str) -> Wanted:
    spec = {"model": "m", "engine": {"type": "vllm", "endpoints": ["a:1"]}, "scheduling": {"policy": policy}}
    return Wanted(ModelDeployment.model_validate({"metadata": {"name": "d"}, "spec": spec}), None)


def policy(folder: Path) -> str:
    return str(json.loads((folder / "router.json").read_text())["scheduling"]["policy"])


def deployment_in(folder: Path, session: aiohttp.ClientSession, said: list[str]) -> Deployment:
    ports = {"port": 0, "admin_port": 0}
    return Deployment(
        wanted("sal"), host="127.0.0.1", **ports, folder=folder, session=session, guard=Guard(), say=said.append
    )


def test_what_cannot_be_written_stays_as_it_was_is_told_once_and_tried_again(tmp_path: Path) -> None:
    folder, away, said = tmp_path / "d", tmp_path / "away", []

    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            deployment = deployment_in(folder, session, said)
            with pytest.raises(FileNotFoundError):  # nothing runs yet that could stay
                deployment._publish()
            folder.mkdir()
            deployment._publish()
            folder.rename(away)
            deployment.follow(wanted("random"))
            deployment._publish()  # as each round of the rebalancer does
            assert policy(away) == "sal"
            assert deployment.config is not None
            assert deployment.config.scheduling.policy == "sal"
            away.rename(folder)
            deployment._publish()

    asyncio.run(run())
    assert policy(folder) == "random"
    assert [line.partition(":")[0] for line in said] == ["d"]
    assert "the last configuration stays" in said[0]


@on_virtual_time
async def test_weights_do_not_lapse_between_rare_rounds(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        deployment = deployment_in(tmp_path, session, [])
        deployment._balance = Balance(replicas={"a:1": ReplicaBalance(weight=0.5)})
        deployment._publish()
        await deployment._rest(deployment._balance.valid_seconds)

    assert json.loads((tmp_path / "router.json").read_text())["balance"]["renewed"] >= 2
