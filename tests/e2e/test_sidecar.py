"""Routers as sidecars on a real cluster: in engine pods of halffull, and in those of somebody else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.live import NAMESPACE, Cluster, Load

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.parametrize(
        "release", [[f"watch.namespaces={{{NAMESPACE}}}", "adoptedWorkloads.patch=true"]], indirect=True, ids=["named"]
    ),
]


def containers(cluster: Cluster, *selection: str) -> list[set[str]]:
    """Names of the containers of each pod that is not terminating, native sidecars included."""
    found = []
    for pod in cluster.get("pods", *selection)["items"]:
        if "deletionTimestamp" not in pod["metadata"]:
            spec = pod["spec"]
            found.append({part["name"] for part in [*spec.get("initContainers", ()), *spec["containers"]]})
    return found


def test_sidecars_in_our_own_pods(
    cluster: Cluster, release: list[str], load: Callable[..., Load], root: Path, timings: dict[str, float]
) -> None:
    name = "sidecar"
    traffic = (name, "--model", "llama-3.1-8b", "--rate", "5")
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", str(root / "manifests" / "samples" / "sidecar.yaml"))
    timings["apply to Ready"] = cluster.wait("all conditions are True", lambda: cluster.is_well(name))
    row = cluster.row(name)
    assert (row["READY"], row["ROUTERS"]) == ("3/3", "3/3"), row
    assert not cluster.pods(name, "router")

    running = load(*traffic)
    timings["policy applied"] = cluster.set_policy(name, "least-requests")
    victim = cluster.pods(name, "engine")[0]
    cluster.kubectl("delete", "pod", "-n", NAMESPACE, victim, "--wait=false")
    figures = running.all_answered()
    assert len(figures["replicas"]) >= 3
    timings["pod replaced"] = cluster.wait("all conditions are True", lambda: cluster.is_well(name))

    cluster.kubectl("delete", "-n", NAMESPACE, "mdep", name)
    timings["all children gone"] = cluster.wait("the namespace is empty", lambda: not cluster.objects())


def engines(image: str) -> dict[str, Any]:
    """A Deployment of engines as a user might have it."""
    engine = {
        "name": "vllm",
        "image": image,
        "args": ["engine", "--model=m", "--port=8000", "--max-num-seqs=64", "--shutdown-timeout=30"],
        "ports": [{"name": "api", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    }
    template = {
        "metadata": {"labels": {"app": "mine"}},
        "spec": {"containers": [engine], "terminationGracePeriodSeconds": 60},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "mine", "namespace": NAMESPACE},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "mine"}}, "template": template},
    }


def test_adopted_pods_with_and_without_sidecars(
    cluster: Cluster, release: list[str], load: Callable[..., Load], image: str, timings: dict[str, float]
) -> None:
    name = "adopted"
    traffic = (name, "--model", "m", "--rate", "5")
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(engines(image)))
    cluster.kubectl("rollout", "status", "-n", NAMESPACE, "deployment/mine", "--timeout=2m")
    theirs = cluster.objects()

    # adopt: their pods stay as they are
    spec: dict[str, Any] = {"model": "m", "engine": {"type": "simulated", "selector": {"matchLabels": {"app": "mine"}}}}
    resource = {
        "apiVersion": "halffull.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(resource))
    timings["adopted"] = cluster.wait("all conditions are True", lambda: cluster.is_well(name))
    assert cluster.row(name)["READY"] == "2/2"
    assert theirs <= cluster.objects()
    load(*traffic).all_answered()

    # move the routers into their pods
    spec["router"] = {"placement": "Sidecar"}
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(resource))
    cluster.wait("their pods have sidecars", lambda: containers(cluster, "-l", "app=mine") == [SIDECAR, SIDECAR])
    timings["sidecars"] = cluster.wait("all conditions are True", lambda: cluster.is_well(name))
    assert not cluster.pods(name, "router")
    load(*traffic).all_answered()

    # their own apply goes on beside ours
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(engines(image)))
    assert all(found == SIDECAR for found in containers(cluster, "-l", "app=mine"))

    # delete: the sidecars leave, their pods run on
    cluster.kubectl("delete", "-n", NAMESPACE, "mdep", name)
    cluster.wait("the sidecars are gone", lambda: containers(cluster, "-l", "app=mine") == [{"vllm"}, {"vllm"}])
    cluster.kubectl("rollout", "status", "-n", NAMESPACE, "deployment/mine", "--timeout=3m")
    cluster.kubectl("delete", "-n", NAMESPACE, "deployment", "mine")
    timings["all gone"] = cluster.wait("the namespace is empty", lambda: not cluster.objects())


SIDECAR = {"halffull-router", "vllm"}
