"""Policies on a real API server: what is edited reaches real routers, and the status says when; references may be wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.control_plane import ControlPlane
from operators import (
    Eventually,
    Seen,
    endpoint_slice,
    machine_address,
    model_deployment,
    operator,
    scheduling_policy,
)
from processes import running

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds"), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory, cluster: ControlPlane, new_namespace) -> Iterator[Seen]:
    """A namespace with a running operator."""
    name = new_namespace()
    folder: Path = tmp_path_factory.mktemp("operator") / "run"
    with operator(folder, cluster, name):
        yield Seen(cluster, name)


def events(seen: Seen, name: str) -> set[str]:
    """Reasons of the Events about a ModelDeployment."""
    items = seen.cluster.get("-n", seen.namespace, "events.events.k8s.io")["items"]
    return {item["reason"] for item in items if item["regarding"].get("name") == name}


def test_an_edit_is_applied_by_a_real_router_and_told(tmp_path: Path, seen: Seen, eventually: Eventually) -> None:
    address = machine_address()
    if not address:
        pytest.skip("this machine has only loopback, which an EndpointSlice may not hold")
    cluster, namespace = seen.cluster, seen.namespace
    cluster.apply(
        model_deployment("real", namespace, replicas=2, router={"replicas": 1}, scheduling={"policy": "round-robin"})
    )
    eventually(lambda: seen.config("real"))
    place = ["--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace, "--config-map", "real-router"]
    with (
        running(tmp_path / "one", "engine", "--host", address, "--model", "m") as one,
        running(tmp_path / "two", "engine", "--host", address, "--model", "m") as two,
        running(tmp_path / "router", "router", "--host", address, *place) as router,
    ):
        assert router.admin_port
        cluster.apply(
            endpoint_slice(namespace, "real", "real-engines", "engine-one", address, one.port, "http"),
            endpoint_slice(namespace, "real", "real-engines", "engine-two", address, two.port, "http"),
            endpoint_slice(namespace, "real", "real-peers", "router-one", address, router.admin_port, "admin"),
        )

        eventually(lambda: seen.condition("real", "PolicyApplied") == ("True", "Applied"), seconds=60)
        eventually(lambda: seen.condition("real", "Ready") == ("True", "Serving"))
        status = seen.get("mdep", "real")["status"]
        assert [row["policy"] for row in status["routers"]] == ["round-robin"]
        assert status["routers"][0]["hash"] == seen.config("real")["hash"]
        assert [row["signals"] for row in status["replicas"]] == ["fresh", "fresh"]
        assert status["summary"]["ready"] == "2/2"

        seen.patch("real", '{"scheduling": {"policy": "power-of-two", "gate": "none", "ordering": "fcfs"}}')

        eventually(lambda: seen.condition("real", "PolicyApplied") == ("True", "OrderingWithoutQueue"))
        status = seen.get("mdep", "real")["status"]
        assert status["routers"][0]["policy"] == "power-of-two"
        assert status["routers"][0]["hash"] == seen.config("real")["hash"]
        eventually(lambda: "PolicyApplied" in events(seen, "real"))

    # engines and router are gone, the slices are not: nothing may be claimed that nobody says
    eventually(lambda: seen.condition("real", "PolicyApplied") == ("False", "RollingOut"), seconds=60)


def test_a_policy_that_ten_share_reaches_all(seen: Seen, eventually: Eventually) -> None:
    names = [f"user-{number}" for number in range(10)]
    seen.cluster.apply(scheduling_policy("shared", seen.namespace, policy="random"))
    seen.cluster.apply(
        *(model_deployment(name, seen.namespace, schedulingPolicyRef={"name": "shared"}) for name in names)
    )
    eventually(lambda: all(seen.config(name).get("scheduling", {}).get("policy") == "random" for name in names))

    seen.patch("shared", '{"policy": "least-requests"}', "spol")

    eventually(lambda: all(seen.config(name)["scheduling"]["policy"] == "least-requests" for name in names))
    generation = seen.get("spol", "shared")["metadata"]["generation"]
    assert {seen.config(name)["schedulingPolicy"]["generation"] for name in names} == {generation}
    eventually(lambda: seen.get("spol", "shared").get("status", {}).get("users") == 10)
    eventually(lambda: seen.condition("shared", "Applied", "spol") == ("False", "RollingOut"))
    assert seen.get("spol", "shared")["status"]["observedGeneration"] == generation


def test_a_policy_that_is_absent_is_a_condition(seen: Seen, eventually: Eventually) -> None:
    seen.cluster.apply(model_deployment("lost", seen.namespace, schedulingPolicyRef={"name": "later"}))
    eventually(lambda: seen.condition("lost", "PolicyApplied") == ("False", "PolicyNotFound"))
    assert seen.config("lost")["scheduling"]["policy"] == "sal"  # none ever was: the default
    eventually(lambda: "PolicyNotFound" in events(seen, "lost"))

    seen.cluster.apply(scheduling_policy("later", seen.namespace, policy="random"))
    eventually(lambda: seen.config("lost")["scheduling"]["policy"] == "random")
    eventually(lambda: seen.condition("lost", "PolicyApplied")[1] == "NoRouterReady")

    seen.cluster.kubectl("-n", seen.namespace, "delete", "spol", "later")
    eventually(lambda: seen.condition("lost", "PolicyApplied") == ("False", "PolicyNotFound"))
    assert seen.config("lost")["scheduling"]["policy"] == "random"  # what was applied last stays


def test_two_that_adopt_the_same_pods_are_told(seen: Seen, eventually: Eventually) -> None:
    engine = {"type": "vllm", "selector": {"matchLabels": {"app": "shared"}}}
    seen.cluster.apply(
        model_deployment("left", seen.namespace, engine=engine),
        model_deployment("right", seen.namespace, engine=engine),
    )
    eventually(lambda: seen.get("svc", "left-engines") and seen.get("svc", "right-engines"))
    for name in ("left", "right"):  # as the endpoints controller would, for a pod with an address
        seen.cluster.apply(endpoint_slice(seen.namespace, name, f"{name}-engines", "pod", "10.9.9.9", 8000, "http"))

    eventually(lambda: seen.condition("left", "EnginesShared") == ("True", "SelectorsOverlap"))
    eventually(lambda: seen.condition("right", "EnginesShared") == ("True", "SelectorsOverlap"))
    seen.cluster.kubectl("-n", seen.namespace, "delete", "endpointslice", "right-engines-pod")
    eventually(lambda: seen.condition("left", "EnginesShared") == ("", ""))


def test_a_sidecar_that_may_not_be_put_in_is_a_condition(seen: Seen, eventually: Eventually) -> None:
    engine = {"type": "vllm", "selector": {"matchLabels": {"app": "not-ours"}}}
    seen.cluster.apply(model_deployment("barred", seen.namespace, engine=engine, router={"placement": "Sidecar"}))

    eventually(lambda: seen.condition("barred", "SidecarNotPossible") == ("True", "NotInjected"))
    eventually(lambda: seen.condition("barred", "RouterReady") == ("False", "SidecarNotPossible"))
