"""What adopted pods get beside the sidecar itself, so that it starts whatever they allow themselves."""

import asyncio
from typing import Any

import pytest

from in_memory_operator import Engines, Operator, Server, running
from virtual_time import on_virtual_time


class Merging(Server):
    """Notes what is applied to the workload, which stays as its owner has it."""

    injected: dict[str, Any] | None = None

    async def apply(self, document: dict[str, Any], **options: str) -> dict[str, Any]:
        if document["kind"] != "StatefulSet":
            return await super().apply(document, **options)
        self.injected = document
        return document


def workload(name: str, of: str | None = None, **pod: Any) -> dict[str, Any]:
    """A StatefulSet whose pods are selected; `of`: the ModelDeployment whose sidecar it has."""
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "engine"}], **pod}}
    labels = {"halffull.dev/sidecar-of": of} if of else {}
    return {"metadata": {"name": name, "namespace": "n", "labels": labels}, "spec": {"template": template}}


def operating(server: Server, **engine: Any) -> Operator:
    engine = {"type": "vllm", "selector": {"matchLabels": {"app": "x"}}, **engine}
    return Operator(server, Engines(server), patch_adopted=True, engine=engine, router={"placement": "Sidecar"})


def problem(server: Server) -> str:
    conditions = server.statuses[-1][1]["conditions"]
    return next((c["message"] for c in conditions if c["type"] == "SidecarNotPossible"), "")


async def injected(pod: dict[str, Any], account: dict[str, Any]) -> dict[str, Any]:
    """Pod spec that is applied to a workload with that one."""
    server = Merging()
    server.objects["StatefulSet", "theirs"] = workload("theirs", **pod)
    server.objects["ServiceAccount", "default"] = {"metadata": {"name": "default"}, **account}
    async with running(operating(server)):
        await asyncio.sleep(5)
    assert server.injected is not None
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


@on_virtual_time
async def test_pods_that_could_not_start_with_it_get_no_sidecar_yet() -> None:
    server = Merging()
    server.objects["StatefulSet", "theirs"] = workload("theirs")
    async with running(operating(server, scheme="https", caSecretRef={"name": "ca"})):
        await asyncio.sleep(5)
        assert server.injected is None
        assert problem(server) == "it waits for what it mounts: spec.engine.caSecretRef: Secret ca does not exist"
        server.objects["Secret", "ca"] = {"metadata": {"name": "ca"}, "data": {"ca.crt": "YQ=="}}
        await asyncio.sleep(40)
        assert server.injected is not None
        assert problem(server) == ""


@on_virtual_time
async def test_sidecars_keep_their_rights_while_another_workload_cannot_have_one() -> None:
    server = Merging()
    server.objects["StatefulSet", "ours"] = workload("ours", of="d", serviceAccountName="engines")
    server.objects["StatefulSet", "theirs"] = workload("theirs", of="other", serviceAccountName="others")
    server.objects["ModelDeployment", "other"] = server.objects["ModelDeployment", "d"] = {
        "metadata": {"name": "any"},
        "spec": {"engine": {"selector": {"matchLabels": {"app": "x"}}}, "router": {"placement": "Sidecar"}},
    }
    async with running(operating(server)):
        await asyncio.sleep(5)
    assert problem(server) == "StatefulSet theirs has the sidecar of other"
    subjects = {subject["name"] for subject in server.objects["RoleBinding", "d-router"]["subjects"]}
    assert subjects == {"d-router", "engines"}
