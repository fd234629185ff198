"""A HorizontalPodAutoscaler scales a ModelDeployment by what the operator says, with no metrics adapter in between."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.live import NAMESPACE, Cluster, Load

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("release", [["externalMetrics.enabled=true"]], indirect=True, ids=["external"]),
]

NAME = "elastic"
METRIC = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/halffull_operator_desired_replicas"


@pytest.fixture
def autoscaler(root: Path) -> dict[str, Any]:
    """That of docs/autoscaling.md, for two replicas at most."""
    text = (root / "docs" / "autoscaling.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```\n(apiVersion.*?)```", text, re.DOTALL)]
    (document,) = (block for block in blocks if block["kind"] == "HorizontalPodAutoscaler")
    document["spec"]["maxReplicas"] = 2
    return dict(document)


def test_more_load_brings_a_second_replica(  # noqa: PLR0917 (fixtures)
    cluster: Cluster,
    release: list[str],
    load: Callable[..., Load],
    root: Path,
    autoscaler: dict[str, Any],
    timings: dict[str, float],
) -> None:
    sample = yaml.safe_load((root / "manifests" / "samples" / "autoscaling.yaml").read_text())
    sample["spec"]["engine"]["template"] = {"args": ["--max-num-seqs", "4"]}
    for document in (sample, autoscaler):
        cluster.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(document))
    cluster.wait("all conditions are True", lambda: cluster.is_well(NAME))
    cluster.wait(
        "the API server serves the metric", lambda: json.loads(cluster.kubectl("get", "--raw", METRIC))["items"]
    )

    # more than one replica can do, until there are two
    lengths = ("--trace", "synthetic", "--prompt-tokens", "50", "--output-tokens", "100", "--spread", "0.1")
    running = load(NAME, "--model", "demo", "--timeout", "300", *lengths, "--rate", "5")
    timings["scaled by load"] = cluster.wait(
        "a second replica serves", lambda: cluster.row(NAME)["READY"] == "2/2", 150
    )
    running.all_answered()
