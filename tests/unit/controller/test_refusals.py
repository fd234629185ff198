"""What the API server refuses for good is told in the status, is tried again, and stops nothing else."""

import asyncio

from halffull.controller.kube import ApiError
from in_memory_operator import Engines, Operator, Server, reason, running
from virtual_time import on_virtual_time


@on_virtual_time
async def test_a_child_that_is_refused_is_told_and_tried_again() -> None:
    server = Server()
    server.refuses["Deployment"] = ApiError(422, 'patch d-router: spec.template: Invalid value: "x"')
    operator = Operator(server, Engines(server))
    async with running(operator):
        await asyncio.sleep(5)
        assert reason(server.statuses[-1][1], "Ready") == "ChildRefused"
        assert ("PodDisruptionBudget", "d-router") in server.objects  # the others are there all the same
        assert server.events.count("ChildRefused") == 1

        server.refuses.clear()
        await asyncio.sleep(40)
        assert reason(server.statuses[-1][1], "Ready") != "ChildRefused"
    assert ("Deployment", "d-router") in server.objects


@on_virtual_time
async def test_a_configuration_that_is_refused_is_told_whenever_that_happens() -> None:
    server = Server()
    engines = Engines(server)
    async with running(Operator(server, engines)):
        await asyncio.sleep(10)
        assert reason(server.statuses[-1][1], "Ready") != "ChildRefused"
        server.refuses["ConfigMap"] = ApiError(422, "patch d-router: Too long")
        engines.share = 0.5  # a weight is to be published
        await asyncio.sleep(120)
        assert reason(server.statuses[-1][1], "Ready") == "ChildRefused"
        server.refuses.clear()
        await asyncio.sleep(60)
        assert reason(server.statuses[-1][1], "Ready") != "ChildRefused"
        assert server.events.count("ChildRefused") == 1

    server.refuses["ConfigMap"] = ApiError(403, "patch d-router: denied by a webhook")
    async with running(Operator(server, engines, status=server.statuses[-1][1])):
        await asyncio.sleep(10)
    assert reason(server.statuses[-1][1], "Ready") == "ChildRefused"


@on_virtual_time
async def test_a_secret_that_is_refused_stops_no_other_child() -> None:
    server = Server()
    server.refuses["Secret"] = ApiError(403, "post secrets: exceeded quota")
    operator = Operator(server, Engines(server))
    async with running(operator):
        await asyncio.sleep(5)
        ready = next(c for c in server.statuses[-1][1]["conditions"] if c["type"] == "Ready")
        assert (ready["reason"], ready["message"]) == (
            "ChildRefused",
            "Secret d-router: post secrets: exceeded quota",
        )
        assert ("Deployment", "d-router") in server.objects
        server.refuses.clear()
        await asyncio.sleep(40)
        assert reason(server.statuses[-1][1], "Ready") != "ChildRefused"
    assert ("Secret", "d-router") in server.objects
    assert operator.failures == []


@on_virtual_time
async def test_a_secret_of_somebody_else_is_told() -> None:
    server = Server()
    server.objects["Secret", "d-router"] = {"metadata": {"name": "d-router", "uid": "theirs", "resourceVersion": "1"}}
    async with running(Operator(server, Engines(server))):
        await asyncio.sleep(5)
        ready = next(c for c in server.statuses[-1][1]["conditions"] if c["type"] == "Ready")
        assert (ready["reason"], "Secret d-router" in ready["message"]) == ("NameTaken", True)
        assert ("Deployment", "d-router") in server.objects
        del server.objects["Secret", "d-router"]
        await asyncio.sleep(40)
    assert reason(server.statuses[-1][1], "Ready") != "NameTaken"
    assert server.objects["Secret", "d-router"]["stringData"]["peer-token"]


@on_virtual_time
async def test_secrets_that_are_not_there_are_told_until_they_are() -> None:
    server = Server()
    engine = {"type": "vllm", "endpoints": ["fast:1"], "scheme": "https", "caSecretRef": {"name": "ca"}}
    router = {"tls": {"secretRef": {"name": "tls"}}}
    server.objects["Secret", "tls"] = {"metadata": {"name": "tls"}, "data": {"tls.crt": "YQ=="}}
    async with running(Operator(server, Engines(server), engine=engine, router=router)):
        await asyncio.sleep(5)
        told = next(c for c in server.statuses[-1][1]["conditions"] if c["type"] == "SecretsMissing")
        assert told["message"] == (
            "spec.engine.caSecretRef: Secret ca does not exist; spec.router.tls.secretRef: Secret tls has no key tls.key"
        )
        server.objects["Secret", "ca"] = {"metadata": {"name": "ca"}, "data": {"ca.crt": "YQ=="}}
        server.objects["Secret", "tls"]["data"]["tls.key"] = "YQ=="
        await asyncio.sleep(40)
        assert "SecretsMissing" not in {c["type"] for c in server.statuses[-1][1]["conditions"]}
        del server.objects["Secret", "ca"]
        await asyncio.sleep(90)
        assert reason(server.statuses[-1][1], "SecretsMissing") == "SecretNotFound"
    assert server.events.count("SecretNotFound") == 2


@on_virtual_time
async def test_a_workload_that_cannot_have_the_sidecar_stops_no_child() -> None:
    server = Server()
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "engine"}]}}
    metadata = {"name": "theirs", "namespace": "n", "labels": {}}
    server.objects["StatefulSet", "theirs"] = {"metadata": metadata, "spec": {"template": template}}
    server.refuses["StatefulSet"] = ApiError(422, "patch theirs: Duplicate value")
    engine = {"type": "vllm", "selector": {"matchLabels": {"app": "x"}}}
    router = {"placement": "Sidecar"}
    operator = Operator(server, Engines(server), patch_adopted=True, engine=engine, router=router)
    async with running(operator):
        await asyncio.sleep(5)

    told = next(c for c in server.statuses[-1][1]["conditions"] if c["type"] == "SidecarNotPossible")
    assert told["message"] == "StatefulSet theirs cannot have it: patch theirs: Duplicate value"
    assert ("Service", "d") in server.objects
    assert operator.failures == []


@on_virtual_time
async def test_a_patch_without_names_is_told() -> None:
    server = Server()
    patch = {"spec": {"containers": [{"image": "x"}]}}
    operator = Operator(server, Engines(server), router={"podTemplatePatch": patch})
    async with running(operator):
        await asyncio.sleep(5)

    ready = next(c for c in server.statuses[-1][1]["conditions"] if c["type"] == "Ready")
    assert (ready["reason"], ready["message"]) == (
        "ChildRefused",
        "podTemplatePatch: each element of containers needs 'name'",
    )


@on_virtual_time
async def test_a_kind_at_which_the_server_fails_keeps_no_other_back() -> None:
    server = Server()
    server.refuses["Role"] = ApiError(500, "failed calling webhook")
    operator = Operator(server, Engines(server))
    async with running(operator):
        await asyncio.sleep(5)
        assert ("Deployment", "d-router") in server.objects
        assert operator.failures, "it is tried again"
        server.refuses.clear()
        await asyncio.sleep(60)
    assert ("Role", "d-router") in server.objects
