"""The chart: what it renders, what it refuses, and that a real API server takes it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane, KubectlError

pytestmark = pytest.mark.cluster

Rendered = list[dict[str, Any]]
Render = Callable[..., Rendered]

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "namespaces": {"watch": {"namespaces": ["team-a", "team-b"]}, "crds": {"enabled": False}},
    "monitoring": {"monitoring": {"enabled": True, "labels": {"release": "prometheus"}}},
    "external metrics": {"externalMetrics": {"enabled": True}},
    "everything": {
        "global": {"of": "a parent chart"},
        "image": {"repository": "registry.example/halffull", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "router": {"image": "registry.example/halffull:router"},
        "adoptedWorkloads": {"patch": True},
        "replicas": 3,
        "logLevel": "debug",
        "logFormat": "json",
        "serviceAccount": {"annotations": {"example.com/role": "x"}},
        "rbac": {"userRoles": "never"},
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"team": "serving"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "control-plane", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "priorityClassName": "system-cluster-critical",
        "extraEnv": [{"name": "A", "value": "b"}],
        "nameOverride": "hf",
        "externalMetrics": {"enabled": True, "secretName": "mine", "caBundle": "bm9uZQ=="},
    },
    "bare": {
        "crds": {"enabled": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "rbac": {"create": False, "userRoles": "never"},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
}

WRONG_VALUES = [
    ({"rooter": {}}, "rooter"),
    ({"image": {"name": "x"}}, "name"),
    ({"image": {"pullPolicy": "always"}}, "'Always', 'IfNotPresent', 'Never'"),
    ({"image": {"digest": "sha256:1"}}, "/image/digest"),
    ({"watch": {"namespaces": "team-a"}}, "/watch/namespaces"),
    ({"watch": {"namespaces": ["Team"]}}, "/watch/namespaces/0"),
    ({"replicas": -1}, "/replicas"),
    ({"logLevel": "verbose"}, "'debug', 'info', 'warning', 'error'"),
    ({"rbac": {"userRoles": True}}, "/rbac/userRoles"),
    ({"monitoring": {"interval": 15}}, "/monitoring/interval"),
]


def of_kind(documents: Rendered, *kinds: str) -> Rendered:
    return [document for document in documents if document["kind"] in kinds]


def names(documents: Rendered) -> list[str]:
    return [document["metadata"]["name"] for document in documents]


def arguments(documents: Rendered) -> list[str]:
    (deployment,) = of_kind(documents, "Deployment")
    return list(deployment["spec"]["template"]["spec"]["containers"][0]["args"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_lint_has_nothing_to_say(variant: str, helm: Path, chart: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VARIANTS[variant]))
    command = [helm, "lint", "--strict", "--kube-version", "1.34.0", "-f", values, chart]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.parametrize(("values", "named"), WRONG_VALUES)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], named: str, render: Render) -> None:
    with pytest.raises(ValueError, match="values don't meet the specifications") as refusal:
        render(values)
    assert named in str(refusal.value)


def test_every_value_has_a_description_and_a_default(chart: Path) -> None:
    schema = yaml.safe_load((chart / "values.schema.json").read_text())
    defaults = yaml.safe_load((chart / "values.yaml").read_text())

    def check(node: dict[str, Any], value: Any, path: str) -> None:
        for key, part in node.get("properties", {}).items():
            assert part.get("description"), f"{path}.{key} has no description"
            if key != "global" and "values" not in part and path.count(".") < 2:
                assert key in value or path == ".resources", f"{path}.{key} is not in values.yaml"
                check(part, value.get(key), f"{path}.{key}" if path != "." else f".{key}")
        if "properties" in node:
            assert node["additionalProperties"] is False, f"{path} takes anything"

    check(schema, defaults, ".")
    assert set(defaults) <= set(schema["properties"])


def test_all_namespaces_need_one_cluster_role(render: Render) -> None:
    documents = render()
    assert names(of_kind(documents, "ClusterRole")) == ["halffull", "halffull-edit", "halffull-view"]
    assert names(of_kind(documents, "ClusterRoleBinding")) == ["halffull"]
    assert names(of_kind(documents, "Role")) == ["halffull-lease"]
    assert not any("--namespace" in argument for argument in arguments(documents))


def test_named_namespaces_need_no_cluster_role(render: Render) -> None:
    documents = render(VARIANTS["namespaces"])
    assert not of_kind(documents, "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]) for role in of_kind(documents, "Role")}
    assert roles == {("team-a", "halffull"), ("team-b", "halffull"), ("halffull-system", "halffull-lease")}
    bound = {
        (binding["metadata"]["namespace"], binding["roleRef"]["name"]) for binding in of_kind(documents, "RoleBinding")
    }
    assert bound == roles
    assert {"--namespace=team-a", "--namespace=team-b"} <= set(arguments(documents))
    allowed = render({**VARIANTS["namespaces"], "rbac": {"userRoles": "always"}})
    assert names(of_kind(allowed, "ClusterRole")) == ["halffull-edit", "halffull-view"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_operator_gets_no_dangerous_right(variant: str, render: Render) -> None:
    for role in of_kind(render(VARIANTS[variant]), "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert not {"*", "bind", "escalate", "impersonate"} & set(rule["verbs"])
            assert "*" not in rule["resources"] + rule["apiGroups"]
            if "secrets" in rule["resources"]:
                assert not {"list", "watch"} & set(rule["verbs"])


def test_workloads_of_others_are_patched_only_if_allowed(render: Render) -> None:
    def may_patch_stateful_sets(documents: Rendered) -> bool:
        return any(
            "statefulsets" in rule["resources"] for role in of_kind(documents, "ClusterRole") for rule in role["rules"]
        )

    assert not may_patch_stateful_sets(render())
    assert "--patch-adopted-workloads" not in arguments(render())
    allowed = render({"adoptedWorkloads": {"patch": True}})
    assert may_patch_stateful_sets(allowed)
    assert "--patch-adopted-workloads" in arguments(allowed)


def test_crds_are_kept_on_uninstall(render: Render, root: Path) -> None:
    rendered = {document["metadata"]["name"]: document for document in of_kind(render(), "CustomResourceDefinition")}
    sources = [yaml.safe_load(path.read_text()) for path in (root / "manifests" / "crds").glob("*.yaml")]
    assert set(rendered) == {source["metadata"]["name"] for source in sources}
    for source in sources:
        document = rendered[source["metadata"]["name"]]
        assert document["spec"] == source["spec"]
        assert document["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_monitors_only_on_demand(render: Render) -> None:
    assert not of_kind(render(), "PodMonitor", "ServiceMonitor")
    monitors = of_kind(render(VARIANTS["monitoring"]), "PodMonitor", "ServiceMonitor")
    assert sorted(names(monitors)) == ["halffull", "halffull-adopted-routers", "halffull-engines", "halffull-routers"]
    assert all(monitor["metadata"]["labels"]["release"] == "prometheus" for monitor in monitors)


def test_external_metrics_only_on_demand(render: Render) -> None:
    assert not of_kind(render(), "APIService")
    made = render(VARIANTS["external metrics"])
    (registration,) = of_kind(made, "APIService")
    (secret,) = of_kind(made, "Secret")
    assert registration["spec"]["service"]["name"] in names(of_kind(made, "Service"))
    assert registration["spec"]["caBundle"] == secret["data"]["ca.crt"]
    assert "--external-metrics=/certificate" in arguments(made)

    own = render({"externalMetrics": {"enabled": True, "secretName": "mine", "caBundle": "bm9uZQ=="}})
    (registration,) = of_kind(own, "APIService")
    assert registration["spec"]["caBundle"] == "bm9uZQ=="
    assert not of_kind(own, "Secret")
    with pytest.raises(ValueError, match="secretName needs"):
        render({"externalMetrics": {"enabled": True, "secretName": "mine"}})


def test_an_upgrade_keeps_the_certificate(cluster: ControlPlane, chart: Path, chart_namespaces: None) -> None:
    def authority() -> str:
        options = [
            "-n",
            "halffull-system",
            "--kube-version",
            "1.34.0",
            "--dry-run=server",
            "--set",
            "externalMetrics.enabled=true",
        ]
        documents = yaml.safe_load_all(cluster.helm("template", "halffull", str(chart), *options))
        (registration,) = of_kind([document for document in documents if document], "APIService")
        return str(registration["spec"]["caBundle"])

    assert authority() != authority()
    data = {"tls.crt": "Y2VydA==", "tls.key": "a2V5", "ca.crt": "Y2E="}
    metadata = {"name": "halffull-external-metrics", "namespace": "halffull-system"}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    assert authority() == "Y2E="
    cluster.kubectl("delete", "secret", metadata["name"], "-n", metadata["namespace"])


def test_generated_files_are_fresh(root: Path, helm: Path) -> None:
    command = [sys.executable, root / "charts" / "render.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HELM": str(helm)})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_real_api_server_takes_what_is_rendered(
    variant: str, render: Render, cluster: ControlPlane, monitoring_crds: None, chart_namespaces: None
) -> None:
    documents = render(VARIANTS[variant])
    text = yaml.safe_dump_all(documents)
    cluster.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)


def test_the_operator_meets_the_restricted_standard(
    render: Render, cluster: ControlPlane, chart_namespaces: None
) -> None:
    (deployment,) = of_kind(render(), "Deployment")
    template = deployment["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", "namespace": "halffull-system", "labels": template["metadata"]["labels"]},
        "spec": {**template["spec"], "serviceAccountName": "default"},
    }
    cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
    pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = True
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))


def test_install_upgrade_uninstall_keeps_the_crds(
    cluster: ControlPlane, chart: Path, eventually: Callable[..., None]
) -> None:
    common = ["-n", "halffull-chart", "halffull", str(chart)]
    notes = cluster.helm("install", "--create-namespace", "--take-ownership", *common)
    assert "kubectl -n halffull-chart rollout status deployment/halffull" in notes
    try:
        cluster.helm("upgrade", *common, "--set", "replicas=1")
        assert cluster.get("deployment", "halffull", "-n", "halffull-chart")["spec"]["replicas"] == 1
    finally:
        cluster.helm("uninstall", "-n", "halffull-chart", "halffull", "--wait")
    left = cluster.kubectl("get", "all,role,rolebinding,pdb,networkpolicy", "-n", "halffull-chart", "-o", "name")
    assert not left.strip()
    assert cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name").count("halffull") == 0
    crds = cluster.kubectl("get", "crd", "-o", "name")
    assert "modeldeployments.halffull.dev" in crds
    assert "schedulingpolicies.halffull.dev" in crds
    cluster.kubectl("delete", "namespace", "halffull-chart", "--wait=false")
