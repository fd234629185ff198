"""The scale signal on a real API server: the samples apply, an autoscaler finds the scale subresource, the status says how many."""

import json
import re

import pytest
import yaml

from cluster.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]


@pytest.fixture
def blocks(root):
    """The documents of docs/autoscaling.md by kind."""
    text = (root / "docs" / "autoscaling.md").read_text()
    found = [yaml.safe_load(block) for block in re.findall(r"```\n(apiVersion.*?)```", text, re.DOTALL)]
    return {document["kind"]: document for document in found}


def test_the_samples_apply_and_the_scale_is_there(cluster: ControlPlane, root, namespace, blocks) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", str(root / "manifests" / "samples" / "autoscaling.yaml"))
    autoscaler = blocks["HorizontalPodAutoscaler"]
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(autoscaler))

    target = autoscaler["spec"]["scaleTargetRef"]
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
