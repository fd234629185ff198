"""The picture of the cluster: whom each event wakes, in which order events count, and what a complete list mends."""

from typing import Any

from halffull.controller.names import Key
from halffull.controller.observed import Observed
from halffull.controller.picture import Item, Picture


def resource(name: str, version: int, *, generation: int = 1, namespace: str = "n", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"u-{name}", "generation": generation}
    return {"metadata": {**metadata, "resourceVersion": str(version)}, "spec": spec}


def child(name: str, version: int, *, owner: str = "a", **content: Any) -> dict[str, Any]:
    labels = {"halffull.dev/model-deployment": owner}
    metadata = {"name": name, "namespace": "n", "uid": f"u-{name}", "labels": labels, "resourceVersion": str(version)}
    return {"metadata": metadata, **content}


def slice_of(owner: str, version: int, *pods: str) -> dict[str, Any]:
    document = child(f"{owner}-slice", version, owner=owner)
    document["metadata"]["labels"]["kubernetes.io/service-name"] = f"{owner}-engines"
    endpoints = [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": pod}} for pod in pods]
    return {**document, "addressType": "IPv4", "ports": [{"name": "http", "port": 8000}], "endpoints": endpoints}


def item(name: str, kind: str = "ModelDeployment") -> Item:
    return Item(kind, Key("n", name))


ENGINE = {"engine": {"type": "vllm", "selector": {"matchLabels": {"app": "x"}}}}


def picture() -> Picture:
    return Picture(Observed())


def test_a_status_write_wakes_nobody() -> None:
    seen = picture()

    assert seen.take("ModelDeployment", "ADDED", resource("a", 1, **ENGINE)) == {item("a")}
    assert seen.take("ModelDeployment", "MODIFIED", resource("a", 2, **ENGINE)) == set()
    assert seen.take("ModelDeployment", "MODIFIED", resource("a", 3, generation=2, **ENGINE)) == {item("a")}


def test_a_policy_wakes_its_users_and_its_own_status() -> None:
    seen = picture()
    for number, name in enumerate(("a", "b"), start=1):
        spec = {**ENGINE, "schedulingPolicyRef": {"name": "p"}}
        woken = seen.take("ModelDeployment", None, resource(name, number, **spec))
        assert woken == {item(name), item("p", "SchedulingPolicy")}
    seen.take("ModelDeployment", None, resource("other", 3, **ENGINE))
    elsewhere = resource("a", 4, namespace="m", **ENGINE, schedulingPolicyRef={"name": "p"})
    seen.take("ModelDeployment", None, elsewhere)

    everyone = {item("a"), item("b"), item("p", "SchedulingPolicy")}
    assert seen.take("SchedulingPolicy", "ADDED", resource("p", 5, policy="sal")) == everyone
    assert seen.take("SchedulingPolicy", "MODIFIED", resource("p", 6, policy="sal")) == {item("p", "SchedulingPolicy")}
    assert seen.take("SchedulingPolicy", "DELETED", resource("p", 7, policy="sal")) == everyone


def test_leaving_a_policy_wakes_the_policy_left() -> None:
    seen = picture()
    seen.take("ModelDeployment", None, resource("a", 1, **ENGINE, schedulingPolicyRef={"name": "old"}))

    moved = resource("a", 2, generation=2, **ENGINE, schedulingPolicyRef={"name": "new"})

    assert seen.take("ModelDeployment", "MODIFIED", moved) == {
        item("a"),
        item("old", "SchedulingPolicy"),
        item("new", "SchedulingPolicy"),
    }


def test_older_and_equal_versions_count_for_nothing() -> None:
    seen = picture()
    seen.take("ModelDeployment", "ADDED", resource("a", 5, generation=2, **ENGINE))

    assert seen.take("ModelDeployment", None, resource("a", 5, generation=2, **ENGINE)) == set()
    assert seen.take("ModelDeployment", "MODIFIED", resource("a", 4, **ENGINE)) == set()
    assert seen.observed.deployments[Key("n", "a")]["metadata"]["generation"] == 2


def test_deletion_wakes_the_owner_and_a_sweep() -> None:
    seen = picture()
    seen.take("ModelDeployment", "ADDED", resource("a", 1, **ENGINE))

    assert seen.take("ModelDeployment", "DELETED", resource("a", 2, **ENGINE)) == {
        item("a"),
        Item("Sweep", Key("n", "")),
    }
    assert seen.observed.deployments == {}


def test_a_child_wakes_its_owner_unless_only_its_status_changed() -> None:
    seen = picture()
    service = child("a-engines", 1)
    service["metadata"]["generation"] = 1

    assert seen.take("Service", "ADDED", service) == {item("a")}
    later = child("a-engines", 2)
    later["metadata"]["generation"] = 1
    assert seen.take("Service", "MODIFIED", later) == set()
    assert seen.take("Service", "DELETED", child("a-engines", 3)) == {item("a")}


def test_pods_that_two_adopt_wake_both() -> None:
    seen = picture()
    assert seen.take("EndpointSlice", "ADDED", slice_of("a", 1, "x", "y")) == {item("a")}
    assert seen.take("EndpointSlice", None, slice_of("a", 1, "x", "y")) == set()

    assert seen.take("EndpointSlice", "ADDED", slice_of("b", 2, "y")) == {item("a"), item("b")}
    assert seen.observed.sharers(Key("n", "a")) == ["b"]
    assert seen.take("EndpointSlice", "MODIFIED", slice_of("b", 3, "z")) == {item("a"), item("b")}
    assert seen.observed.sharers(Key("n", "a")) == []


def test_nothing_is_kept_of_names_that_come_and_go() -> None:
    seen = picture()
    for number in range(10):
        name, version = f"a{number}", 10 * number
        seen.take("ModelDeployment", "ADDED", resource(name, version + 1, **ENGINE))
        seen.take("Service", "ADDED", child(f"{name}-engines", version + 2, owner=name))
        seen.take("EndpointSlice", "ADDED", slice_of(name, version + 3, "x"))
        assert seen.observed.engines_of(Key("n", name), resource(name, 0, **ENGINE))
        seen.take("ModelDeployment", "DELETED", resource(name, version + 4, **ENGINE))
        seen.take("EndpointSlice", "DELETED", slice_of(name, version + 5, "x"))
        seen.take("Service", "DELETED", child(f"{name}-engines", version + 6, owner=name))
        assert seen.observed.routers(Key("n", name)) == ()
        seen.observed.forget(Key("n", name))

    assert seen.observed == Observed()
    assert seen._seen == {}


def test_a_list_mends_what_the_watch_missed() -> None:
    seen = picture()
    seen.take("ModelDeployment", "ADDED", resource("stays", 1, **ENGINE))
    seen.take("ModelDeployment", "ADDED", resource("vanished", 2, **ENGINE))
    seen.take("ModelDeployment", "ADDED", resource("newer", 9, **ENGINE))
    seen.take("ModelDeployment", "ADDED", resource("elsewhere", 3, namespace="m", **ENGINE))
    seen.take("EndpointSlice", "ADDED", slice_of("stays", 4, "x"))

    listed = [resource("stays", 1, **ENGINE), resource("missed", 5, **ENGINE)]
    woken = seen.compare("ModelDeployment", "n", 8, listed)

    assert woken == {item("missed"), item("vanished"), Item("Sweep", Key("n", ""))}
    names = {key.name for key in seen.observed.deployments}
    assert names == {"stays", "missed", "newer", "elsewhere"}  # `newer` came after the list was made
    assert seen.compare("EndpointSlice", None, 8, []) == {item("stays")}
    assert seen.observed.engines_of(Key("n", "stays"), resource("stays", 1, **ENGINE)) == ()
