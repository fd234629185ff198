"""The operator with exactly the rights that the chart gives it, in named namespaces and in all."""

from pathlib import Path

import pytest
import yaml

from cluster.control_plane import ControlPlane
from operators import Eventually, Seen, model_deployment, operator, scheduling_policy

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds"), pytest.mark.timeout(240)]

RIGHTS = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount", "Lease"}


def rights(cluster: ControlPlane, root: Path, namespace: str, *values: str) -> list[dict]:
    """ServiceAccount, roles, bindings and Lease of the chart."""
    chart = str(root / "charts" / "halffull")
    options = ["--namespace", namespace, "--kube-version", "1.34.0", *(f"--set={value}" for value in values)]
    rendered = cluster.helm("template", "hf", chart, *options)
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    return [document for document in documents if document["kind"] in RIGHTS]


def kubeconfig_of(cluster: ControlPlane, path: Path, namespace: str, account: str) -> Path:
    """A kubeconfig with a token of a ServiceAccount."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    token = cluster.kubectl("-n", namespace, "create", "token", account, "--duration=1h").strip()
    document["users"][0]["user"] = {"token": token}
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("everywhere", [False, True], ids=["named-namespaces", "cluster-wide"])
def test_the_rights_of_the_chart_suffice(  # noqa: PLR0917
    everywhere: bool, tmp_path: Path, root: Path, cluster: ControlPlane, namespace: str, eventually: Eventually
) -> None:
    seen = Seen(cluster, namespace)
    values = ["adoptedWorkloads.patch=true", "rbac.userRoles=never"]
    values += [] if everywhere else [f"watch.namespaces={{{namespace}}}"]
    documents = rights(cluster, root, namespace, *values)
    assert any(document["kind"] == "ClusterRole" for document in documents) == everywhere
    cluster.apply(*documents)
    account = next(d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount")
    lease = next(d["metadata"]["name"] for d in documents if d["kind"] == "Lease")
    kubeconfig = kubeconfig_of(cluster, tmp_path / "kubeconfig", namespace, account)
    arguments = ["--kubeconfig", str(kubeconfig), "--lease", f"{namespace}/{lease}", "--patch-adopted-workloads"]
    labels = {"matchLabels": {"app": "theirs"}}
    pod = {"metadata": {"labels": {"app": "theirs"}}, "spec": {"containers": [{"name": "server", "image": "vllm:1"}]}}
    spec = {"serviceName": "theirs", "replicas": 0, "selector": labels, "template": pod}
    theirs = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "theirs"}, "spec": spec}
    cluster.apply({**theirs, "metadata": {"name": "theirs", "namespace": namespace}})

    with operator(tmp_path / "run", cluster, "" if everywhere else namespace, *arguments) as process:
        cluster.apply(
            scheduling_policy("p", namespace, policy="random"),
            model_deployment("made", namespace, schedulingPolicyRef={"name": "p"}),
            model_deployment(
                "worn", namespace, engine={"type": "vllm", "selector": labels}, router={"placement": "Sidecar"}
            ),
        )
        eventually(lambda: seen.get("pdb", "made-engine"))
        eventually(lambda: seen.condition("made", "PolicyApplied")[1] == "NoRouterReady")
        eventually(lambda: seen.condition("p", "Applied", "spol")[1] == "RollingOut")
        eventually(lambda: "initContainers" in seen.get("sts", "theirs")["spec"]["template"]["spec"])
        seen.patch("made", '{"schedulingPolicyRef": {"name": "absent"}}')  # a Warning Event
        eventually(lambda: seen.condition("made", "PolicyApplied")[1] == "PolicyNotFound")
        cluster.kubectl("-n", namespace, "delete", "mdep", "worn")
        eventually(lambda: "initContainers" not in seen.get("sts", "theirs")["spec"]["template"]["spec"])
        cluster.kubectl("-n", namespace, "delete", "lease", lease)
        eventually(lambda: (found := seen.get("lease", lease)) and found["spec"]["holderIdentity"])
        cluster.kubectl("-n", namespace, "patch", "mdep", "made", "--type=merge", "-p", PRUNES)
        eventually(lambda: "Deployment/made-engine" not in seen.children("made"))
        log = [line for line in process.log.read_text().splitlines() if namespace in line or not everywhere]
    assert [line for line in log if "forbidden" in line] == []
    if everywhere:
        cluster.kubectl("delete", "-f", "-", stdin=yaml.safe_dump_all(documents))


PRUNES = '{"spec": {"engine": {"template": null, "endpoints": ["10.9.9.9:8000"]}}}'
