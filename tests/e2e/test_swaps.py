"""Fifty edits of the policy under load: no request notices, and each is soon applied."""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest

from e2e.live import NAMESPACE, Cluster, Load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAME = "simulated"
EDITS = 50
POLICIES = ("round-robin", "power-of-two", "least-requests", "random", "sal")
Call = Callable[..., Any]


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Call]:
    """Calls the API server without the start of a kubectl for each call: `api(path)` reads, `api(path, patch)` merges."""
    with subprocess.Popen(
        [cluster.program("kubectl"), "proxy", "--port=0"], stdout=subprocess.PIPE, text=True
    ) as proxy:
        assert proxy.stdout is not None
        address = re.search(r"\S+:\d+", proxy.stdout.readline())
        assert address is not None

        def call(path: str, patch: dict[str, Any] | None = None) -> Any:
            request = urllib.request.Request(f"http://{address[0]}{path}")
            if patch is not None:
                request.method, request.data = "PATCH", json.dumps(patch).encode()
                request.add_header("Content-Type", "application/merge-patch+json")
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)

        yield call
        proxy.terminate()


def test_no_request_notices_fifty_swaps(  # noqa: PLR0917 (fixtures)
    cluster: Cluster,
    release: list[str],
    load: Callable[..., Load],
    root: Path,
    api: Call,
    timings: dict[str, float],
) -> None:
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", str(root / "manifests" / "samples" / "simulated.yaml"))
    cluster.wait("all conditions are True", lambda: cluster.is_well(NAME))
    routers = [f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8101/proxy/status" for pod in cluster.pods(NAME, "router")]
    resource = f"/apis/halffull.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments/{NAME}"

    running = load(NAME, "--model", "llama-3.1-8b", "--rate", "8")
    applied, told = [], []
    for policy in islice(cycle(POLICIES), EDITS):
        start = time.monotonic()
        edited = api(resource, {"spec": {"scheduling": {"policy": policy}}})
        generation = edited["metadata"]["generation"]
        for router in routers:
            while (status := api(router))["config"]["modelDeployment"]["generation"] != generation:
                assert time.monotonic() - start < 30, status
            assert status["policy"] == policy
        applied.append(time.monotonic() - start)
        while not says_applied(api(resource)):
            assert time.monotonic() - start < 30
            time.sleep(0.02)
        told.append(time.monotonic() - start)
    running.all_answered()
    for what, seconds in (("applied on both routers", applied), ("status says so", told)):
        percentiles = quantiles(seconds, n=100, method="inclusive")
        timings[f"edit to {what}, p50"], timings[f"edit to {what}, p99"] = percentiles[49], percentiles[98]


def says_applied(document: dict[str, Any]) -> bool:
    return any(
        condition["type"] == "PolicyApplied"
        and condition["status"] == "True"
        and condition["observedGeneration"] == document["metadata"]["generation"]
        for condition in document["status"]["conditions"]
    )
