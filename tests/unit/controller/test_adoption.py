"""What adopted pods get beside the sidecar itself, so that it starts whatever they allow themselves."""

import asyncio
from typing import Any

import pytest

from in_memory_operator import Engines, Operator, Server, running
from virtual_time import on_virtual_time


class Merging(Server):
    """Notes what is applied to the workload, which stays as its owner has it."""

    async def apply(self, document: dict[str, Any], **options: str) -> dict[str, Any]:
        if document["kind"] != "StatefulSet":
            return await super().apply(document, **options)
        self.injected = document
        return document


async def injected(pod: dict[str, Any], account: dict[str, Any]) -> dict[str, Any]:
    """Pod spec that is applied to a workload with that one."""
    server = Merging()
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "engine"}], **pod}}
    metadata = {"name": "theirs", "namespace": "n", "labels": {}}
    server.objects["StatefulSet", "theirs"] = {"metadata": metadata, "spec": {"template": template}}
    server.objects["ServiceAccount", "default"] = {"metadata": {"name": "default"}, **account}
    engine = {"type": "vllm", "selector": {"matchLabels": {"app": "x"}}}
    operator = Operator(server, Engines(server), patch_adopted=True, engine=engine, router={"placement": "Sidecar"})
    async with running(operator):
        await asyncio.sleep(5)
    found: dict[str, Any] = server.injected["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(
    ("pod", "account", "given"),
    [
        ({}, {}, False),
        ({"automountServiceAccountToken": False}, {}, True),
        ({}, {"automountServiceAccountToken": False}, True),
        ({"automountServiceAccountToken": True}, {"automountServiceAccountToken": False}, False),
    ],
)
def test_the_sidecar_gets_a_token_where_its_pods_get_none(
    pod: dict[str, Any], account: dict[str, Any], given: bool
) -> None:
    @on_virtual_time
    async def look() -> None:
        spec = await injected(pod, account)
        mounts = {mount["mountPath"]: mount["name"] for mount in spec["initContainers"][0]["volumeMounts"]}
        token = mounts.get("/var/run/secrets/kubernetes.io/serviceaccount")
        assert (token is not None) == given
        assert (token in {volume["name"] for volume in spec["volumes"]}) == given
        assert "automountServiceAccountToken" not in spec, "theirs to say"

    look()
