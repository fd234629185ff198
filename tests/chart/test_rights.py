"""The operator's rights, with its own credentials on a real API server: enough for every sample, and no more."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane, KubectlError
from halffull.api.model_deployment import ModelDeployment, load_documents
from halffull.controller.child import Settings
from halffull.controller.desired import desired
from halffull.controller.router_config import router_config

pytestmark = pytest.mark.cluster

OPERATOR = "system:serviceaccount:halffull-system:halffull"
RIGHTS = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount"}
MODES: dict[str, dict[str, Any]] = {
    "cluster-wide": {"crds": {"enabled": False}},
    "named namespaces": {"crds": {"enabled": False}, "watch": {"namespaces": ["team-a"]}},
}
SAMPLES = sorted(path.name for path in (Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))


@pytest.fixture(scope="module", params=MODES)
def mode(
    request: pytest.FixtureRequest,
    cluster: ControlPlane,
    render: Callable[..., list[dict[str, Any]]],
    chart_namespaces: None,
) -> Iterator[str]:
    """The chart's rights in one of the modes."""
    documents = yaml.safe_dump_all(document for document in render(MODES[request.param]) if document["kind"] in RIGHTS)
    cluster.kubectl("apply", "-f", "-", stdin=documents)
    yield request.param
    cluster.kubectl("delete", "-f", "-", stdin=documents)


def apply(cluster: ControlPlane, *documents: dict[str, Any]) -> None:
    """Server-side apply with the operator's own rights."""
    for document in documents:
        document["metadata"].pop("ownerReferences", None)  # there is no such owner: they would be collected
    text = yaml.safe_dump_all(documents)
    cluster.kubectl(f"--as={OPERATOR}", "apply", "--server-side", "-f", "-", stdin=text)


@pytest.mark.parametrize("sample", SAMPLES)
def test_it_may_make_all_children(sample: str, mode: str, cluster: ControlPlane, root: Path) -> None:
    text = (root / "manifests" / "samples" / sample).read_text()
    for resource in load_documents(text):
        if isinstance(resource, ModelDeployment):
            metadata = resource.metadata.model_copy(update={"namespace": "team-a", "uid": "0" * 8})
            owner = resource.model_copy(update={"metadata": metadata})
            children = desired(owner, router_config(owner), Settings("halffull:dev"))
            apply(cluster, *children)
            for child in children:
                where = ("-n", "team-a", child["kind"], child["metadata"]["name"])
                cluster.kubectl(f"--as={OPERATOR}", "delete", *where, "--wait=false")


def may(cluster: ControlPlane, verb: str, resource: str, namespace: str) -> bool:
    try:
        cluster.kubectl(f"--as={OPERATOR}", "auth", "can-i", verb, resource, "-n", namespace)
    except KubectlError:
        return False
    return True


def test_it_may_not_grant_what_it_does_not_hold(mode: str, cluster: ControlPlane) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "wide", "namespace": "team-a"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}],
    }
    with pytest.raises(KubectlError, match="attempting to grant RBAC permissions not currently held"):
        apply(cluster, role)


def test_it_stays_in_its_namespaces(mode: str, cluster: ControlPlane) -> None:
    assert may(cluster, "create", "deployments.apps", "team-a")
    assert may(cluster, "create", "deployments.apps", "team-b") is (mode == "cluster-wide")
    assert may(cluster, "update", "leases.coordination.k8s.io/halffull-operator", "halffull-system")
    assert not may(cluster, "update", "leases.coordination.k8s.io/other", "halffull-system")
    for namespace in ("team-a", "kube-system"):
        assert not may(cluster, "list", "secrets", namespace)
        assert not may(cluster, "delete", "pods", namespace)
        assert not may(cluster, "create", "pods/exec", namespace)
