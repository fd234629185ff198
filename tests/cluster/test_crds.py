"""The CustomResourceDefinitions on a real API server: what they refuse and with which words, defaults, columns, scale."""

import json
import re

import pytest
import yaml

from cluster.control_plane import ControlPlane, KubectlError
from halffull.api.scheduling import Parameters
from halffull.api.status import (
    Condition,
    ModelDeploymentStatus,
    ReplicaCounts,
    ReplicaStatus,
    RouterStatus,
    SchedulingPolicyStatus,
    Summary,
)
from halffull.core.gate import GATES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES
from wrong_documents import Wrong, document, table

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]


@pytest.fixture(scope="module")
def home(new_namespace) -> str:
    """One namespace for all documents of this module; few of them come to be."""
    return new_namespace()


@pytest.mark.parametrize("row", table(), ids=lambda row: row.title)
def test_a_wrong_document_is_refused_with_a_sentence(cluster: ControlPlane, home, row: Wrong):
    with pytest.raises(KubectlError) as refused:
        cluster.kubectl("apply", "-n", home, "-f", "-", stdin=json.dumps(row.document))

    said = re.sub(r"\[(\w*[a-z]\w*)\]", r".\1", str(refused.value))  # keys of maps: limits[memory]
    assert row.field in said
    assert row.kubectl in str(refused.value)


def test_the_table_is_long_enough():
    assert len(table()) >= 25


@pytest.mark.parametrize("kind", ["ModelDeployment", "SchedulingPolicy"])
def test_the_documents_that_rows_change_are_right(cluster, home, kind):
    cluster.kubectl("apply", "-n", home, "-f", "-", stdin=json.dumps(document(kind)))


def test_definitions_can_be_applied_again_by_every_way(cluster, root):
    folder = str(root / "manifests" / "crds")
    plain = {path.name: yaml.safe_load(path.read_text()) for path in (root / "manifests" / "crds").iterdir()}

    cluster.kubectl("apply", "--server-side", "-f", folder)
    for definition in plain.values():  # an update, unlike an apply without change, is validated anew
        definition["metadata"]["annotations"] = {"test": "updated"}
        cluster.kubectl("replace", "-f", "-", stdin=json.dumps(definition))
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)


def test_all_samples_apply(cluster, root, namespace):
    for path in sorted((root / "manifests" / "samples").iterdir()):
        cluster.kubectl("apply", "-n", namespace, "-f", str(path))


def test_editing_policy_alone_works_for_every_policy(cluster, namespace):
    choices = {**POLICIES, **ORDERINGS, **GATES}
    blocks = {field.alias: {} for field in Parameters.model_fields.values()}
    assert len(blocks) == sum(choice.parameters is not None for choice in choices.values())
    cluster.apply(
        inside(document("SchedulingPolicy", parameters=blocks), namespace),
        inside(document("ModelDeployment", scheduling={"parameters": blocks}), namespace),
    )

    for policy in POLICIES:
        for kind, spec in (("spol", {"policy": policy}), ("mdep", {"scheduling": {"policy": policy}})):
            patch = json.dumps({"spec": spec})
            cluster.kubectl("patch", kind, "right", "-n", namespace, "--type", "merge", "-p", patch)

    last = list(POLICIES)[-1]
    shared, own = (cluster.get(kind, "right", "-n", namespace)["spec"] for kind in ("spol", "mdep"))
    assert shared["policy"] == own["scheduling"]["policy"] == last
    assert set(shared["parameters"]) == set(own["scheduling"]["parameters"]) == set(blocks)


def test_defaults_are_filled_in(cluster, namespace):
    cluster.apply(inside(document("ModelDeployment", scheduling={}, replicas=None), namespace))

    spec = cluster.get("mdep", "right", "-n", namespace)["spec"]

    assert spec["replicas"] == 1
    assert spec["engine"]["port"] == 8000
    assert spec["router"]["drain"] == {"acceptSeconds": 5, "seconds": 120}
    assert spec["scheduling"]["policy"] == "sal"
    assert spec["scheduling"]["queue"]["maxRequests"] == 1024
    assert spec["scheduling"]["signals"]["whenStale"] == "books"
    assert "ordering" not in spec["scheduling"]


def test_a_key_without_a_value_is_as_absent(cluster, namespace):
    resource = document("ModelDeployment")
    resource["spec"] |= {
        "router": None,
        "replicas": None,
        "scheduling": {"queue": None, "parameters": {"powerOfTwo": {"choices": None}}},
    }

    cluster.apply(inside(resource, namespace))

    spec = cluster.get("mdep", "right", "-n", namespace)["spec"]
    assert spec["replicas"] == 1
    assert spec["scheduling"]["parameters"]["powerOfTwo"] == {"choices": 2}


def test_scale_works_on_a_template_only(cluster, namespace):
    adopted = document("ModelDeployment", "adopted", replicas=None)
    adopted["spec"]["engine"] = {"selector": {"matchLabels": {"app": "x"}}}
    cluster.apply(*(inside(each, namespace) for each in (document("ModelDeployment"), adopted)))

    cluster.kubectl("scale", "mdep", "right", "-n", namespace, "--replicas", "5")

    assert cluster.get("mdep", "right", "-n", namespace)["spec"]["replicas"] == 5
    with pytest.raises(KubectlError, match=r"replicas is only allowed with engine\.template"):
        cluster.kubectl("scale", "mdep", "adopted", "-n", namespace, "--replicas", "5")


def test_columns_show_the_status(cluster, namespace):
    cluster.apply(inside(document("ModelDeployment"), namespace))
    status = {
        "policy": "sal",
        "selector": "app=x",
        "summary": {"ready": "3/4", "waiting": "12", "kv": "45%", "routers": "2/2"},
        "replicaCounts": {"total": 4, "ready": 3},
    }
    patch = json.dumps({"status": status})

    cluster.kubectl("patch", "mdep", "right", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)

    header, row = cluster.kubectl("get", "mdep", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "MODEL", "POLICY", "READY", "WAITING", "KV", "ROUTERS", "AGE"]
    assert row.split()[:-1] == ["right", "m", "sal", "3/4", "12", "45%", "2/2"]
    path = f"/apis/halffull.dev/v1alpha1/namespaces/{namespace}/modeldeployments/right/scale"
    scale = json.loads(cluster.kubectl("get", "--raw", path))
    assert scale["spec"]["replicas"] == 2
    assert scale["status"] == {"replicas": 4, "selector": "app=x"}


@pytest.mark.parametrize("path", ["mdep", "mdep.spec", "mdep.spec.engine.template", "mdep.status", "spol.spec"])
def test_explain_describes_every_field(cluster, path):
    said = cluster.kubectl("explain", path)

    assert "<no description>" not in said


def test_explain_names_every_policy_and_what_it_does(cluster):
    said = " ".join(cluster.kubectl("explain", "mdep.spec.scheduling.policy").split())

    for policy in POLICIES.values():
        assert f"{policy.name} ({policy.summary})" in said


def test_a_whole_status_is_kept_as_written(cluster, namespace):
    cluster.apply(inside(document("ModelDeployment"), namespace), inside(document("SchedulingPolicy"), namespace))
    ready = Condition(
        type="Ready",
        status="True",
        reason="Serving",
        message="",
        observed_generation=1,
        last_transition_time="2026-01-01T00:00:00Z",
    )
    replica = ReplicaStatus(
        name="a",
        state="Suspect",
        running=1,
        waiting=2,
        kv_usage_percent=45,
        prefill_tokens_per_second=9.5,
        speed=0.8,
        weight=0.5,
        suspended=True,
        signals="stale",
        reason="silent",
    )
    whole = ModelDeploymentStatus(
        observed_generation=1,
        conditions=(ready,),
        endpoint="http://right",
        policy="sal",
        selector="app=x",
        replica_counts=ReplicaCounts(total=4, ready=1, draining=1, suspect=1, down=1),
        summary=Summary(ready="1/4", waiting="3", kv="45%", routers="1/1"),
        routers=(RouterStatus(name="r", ready=True, policy="sal", hash="h", message="refused"),),
        replicas=(replica,),
    ).dump()
    shared = SchedulingPolicyStatus(observed_generation=1, users=10, conditions=(ready,)).dump()

    for kind, status in (("ModelDeployment", whole), ("SchedulingPolicy", shared)):
        resource = {**inside(document(kind), namespace), "status": status}
        apply = ("apply", "--server-side", "--force-conflicts", "--subresource=status", "-f", "-")
        cluster.kubectl(*apply, stdin=json.dumps(resource))

        assert cluster.get(kind, "right", "-n", namespace)["status"] == status


def inside(resource, namespace):
    """The resource with its namespace in its metadata."""
    return {**resource, "metadata": {**resource["metadata"], "namespace": namespace}}
