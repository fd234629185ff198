"""The scale signal on a real API server: the samples apply, an autoscaler finds the scale subresource and the external metric."""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cluster.control_plane import ControlPlane, KubectlError, free_port
from operators import operator

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]


@pytest.fixture
def elastic(cluster: ControlPlane, root, namespace, blocks) -> str:
    """The namespace of the sample and of the autoscaler of docs/autoscaling.md, both applied."""
    cluster.kubectl("apply", "-n", namespace, "-f", str(root / "manifests" / "samples" / "autoscaling.yaml"))
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(blocks["HorizontalPodAutoscaler"]))
    return str(namespace)


@pytest.fixture
def blocks(root):
    """The documents of docs/autoscaling.md by kind."""
    text = (root / "docs" / "autoscaling.md").read_text()
    found = [yaml.safe_load(block) for block in re.findall(r"```\n(apiVersion.*?)```", text, re.DOTALL)]
    return {document["kind"]: document for document in found}


def test_the_samples_apply_and_the_scale_is_there(cluster: ControlPlane, elastic: str, blocks) -> None:
    namespace = elastic
    target = blocks["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target == blocks["ScaledObject"]["spec"]["scaleTargetRef"]
    path = f"/apis/{target['apiVersion']}/namespaces/{namespace}/modeldeployments/{target['name']}/scale"
    assert json.loads(cluster.kubectl("get", "--raw", path))["spec"]["replicas"] == 1
    cluster.kubectl("scale", "-n", namespace, f"mdep/{target['name']}", "--replicas", "0")
    assert cluster.get("mdep", target["name"], "-n", namespace)["spec"]["replicas"] == 0


def test_samples_ask_for_the_metric_that_the_operator_serves(blocks) -> None:
    external = blocks["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["external"]
    query = blocks["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]

    assert external["metric"]["name"] == "halffull_operator_desired_replicas"
    assert external["metric"]["name"] in query


@contextlib.contextmanager
def api_service(cluster: ControlPlane, namespace: str, port: int) -> Iterator[None]:
    """As the chart's, but for a process of this machine; gone at the end, since one that does not answer holds namespaces up."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "external-metrics", "namespace": namespace},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    registration = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"name": "external-metrics", "namespace": namespace, "port": port},
        },
    }
    cluster.apply(service, registration)
    try:
        cluster.kubectl(
            "wait", "--for=condition=Available", "--timeout=60s", "apiservice/v1beta1.external.metrics.k8s.io"
        )
        yield
    finally:
        cluster.kubectl("delete", "apiservice", "v1beta1.external.metrics.k8s.io")


@pytest.mark.timeout(300)
def test_an_autoscaler_takes_the_metric_from_the_operator(
    cluster: ControlPlane, new_namespace: Callable[[], str], elastic: str, tmp_path: Path, eventually
) -> None:
    namespace = elastic
    certificate, port = tmp_path / "certificate", free_port()
    certificate.mkdir()
    for name in ("crt", "key"):
        shutil.copy(cluster.directory / f"apiserver.{name}", certificate / f"tls.{name}")

    def tell(desired: int) -> None:
        status = {"desiredReplicas": desired, "selector": "a=b", "replicaCounts": {"total": 1}}
        patch = json.dumps({"status": status})
        cluster.kubectl("-n", namespace, "patch", "mdep/elastic", "--subresource=status", "--type=merge", "-p", patch)

    def replicas() -> int:
        return int(cluster.get("mdep", "elastic", "-n", namespace)["spec"]["replicas"])

    # it watches another namespace, so the status is this test's to write
    served = ("--external-metrics", str(certificate), "--external-metrics-port", str(port))
    watched = new_namespace()
    with operator(tmp_path / "operator", cluster, watched, *served), api_service(cluster, watched, port):
        metric = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/halffull_operator_desired_replicas"
        assert json.loads(cluster.kubectl("get", "--raw", metric))["items"] == []
        tell(3)
        (item,) = json.loads(cluster.kubectl("get", "--raw", f"{metric}?labelSelector=model_deployment%3Delastic"))[
            "items"
        ]
        assert (item["metricLabels"], item["value"]) == ({"model_deployment": "elastic"}, "3")
        assert (
            json.loads(cluster.kubectl("get", "--raw", f"{metric}?labelSelector=model_deployment%3Dx"))["items"] == []
        )
        with pytest.raises(KubectlError, match="model_deployment=NAME"):
            cluster.kubectl("get", "--raw", f"{metric}?labelSelector=team%3Da")
        # the autoscaler looks only every 30 s whether there is such an API by now
        eventually(lambda: replicas() == 3, 150)
