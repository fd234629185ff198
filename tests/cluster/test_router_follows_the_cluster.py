"""The router on a real API server: its rights, its ConfigMap, EndpointSlices, and an API server that is away."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane
from halffull.api.router_config import CONFIG_MAP_KEY, RouterConfig
from processes import Running, running
from routers import readiness, ready_replicas, status

pytestmark = pytest.mark.cluster
Eventually = Callable[..., None]
SLICE_PORT = 8000


def own_address() -> str:
    """An address of this machine that an EndpointSlice may hold: not a loopback one. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "192.0.2.10"
        return str(probe.getsockname()[0])


def config(namespace: str, **parts: Any) -> RouterConfig:
    document = {
        "modelDeployment": {"namespace": namespace, "name": "m", "generation": 1},
        "model": "m",
        "engine": {"type": "simulated", "service": "m-engines", "port": SLICE_PORT},
        "router": {"drain": {"acceptSeconds": 0}},
        **parts,
    }
    return RouterConfig.model_validate(document).seal()


def config_map(namespace: str, text: str) -> dict[str, Any]:
    metadata = {"name": "m-router", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {CONFIG_MAP_KEY: text}}


def slices(namespace: str, port: int, *names: str, **conditions: bool) -> dict[str, Any]:
    endpoints = [
        {
            "addresses": [own_address()],
            "conditions": {"ready": True, **conditions},
            "targetRef": {"kind": "Pod", "name": name, "namespace": namespace},
        }
        for name in names
    ]
    labels = {"kubernetes.io/service-name": "m-engines"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"m-engines-{port}", "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": endpoints,
    }


RIGHTS = [
    {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["m-router"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]


def rights(namespace: str) -> list[dict[str, Any]]:
    group, metadata = "rbac.authorization.k8s.io", {"name": "m-router", "namespace": namespace}
    subject = {"kind": "ServiceAccount", "name": "m-router", "namespace": namespace}
    reference = {"apiGroup": group, "kind": "Role", "name": "m-router"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": RIGHTS},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": [subject],
        },
    ]


@pytest.fixture
def arguments(cluster: ControlPlane, namespace: str, tmp_path: Path) -> list[str]:
    """Arguments of a router that has the rights of its ServiceAccount, no more."""
    cluster.apply(*rights(namespace))
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": cluster.kubectl("create", "token", "m-router", "-n", namespace).strip()}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    return ["--namespace", namespace, "--config-map", "m-router", "--kubeconfig", str(path)]


@contextmanager
def engine(folder: Path) -> Iterator[Running]:
    """An engine that listens on all addresses."""
    ready = folder.parent / f"{folder.name}.json"
    options = f"engine --host 0.0.0.0 --port 0 --model m --speedup 20 --ready-file {ready}".split()
    with subprocess.Popen([sys.executable, "-m", "halffull", *options], stdout=subprocess.DEVNULL) as process:
        try:
            while not ready.exists():
                assert process.poll() is None
                time.sleep(0.02)
            yield Running(process, ready, json.loads(ready.read_text())["port"], None)
        finally:
            process.kill()


def replicas(router: Running) -> dict[str, str]:
    return {replica["name"]: replica["state"] for replica in status(router)["replicas"]}


def test_a_router_follows_config_and_endpoints(
    cluster: ControlPlane, namespace: str, arguments: list[str], tmp_path: Path, eventually: Eventually
) -> None:
    cluster.apply(config_map(namespace, config(namespace).to_json()))
    with engine(tmp_path / "engine") as one, running(tmp_path / "router", "router", *arguments) as router:
        eventually(lambda: readiness(router) == 200)  # although there are no endpoints
        assert replicas(router) == {}
        cluster.apply(slices(namespace, one.port, "pod-a"))
        eventually(lambda: replicas(router) == {"pod-a": "Ready"})
        eventually(lambda: status(router)["replicas"][0]["signals"]["state"] == "fresh")
        cluster.apply(slices(namespace, one.port, "pod-a", "pod-b", ready=False))
        eventually(lambda: replicas(router) == {"pod-a": "Down", "pod-b": "Down"})
        cluster.apply(slices(namespace, one.port, "pod-a", ready=False, serving=True, terminating=True))
        eventually(lambda: replicas(router) == {"pod-a": "Draining"})
        cluster.apply(slices(namespace, 1, "pod-c"))
        eventually(lambda: replicas(router) == {"pod-a": "Draining", "pod-c": "Ready"})
        cluster.kubectl("delete", "endpointslices", "-n", namespace, f"m-engines-{one.port}")
        eventually(lambda: replicas(router) == {"pod-c": "Ready"})


def test_edits_are_applied_at_once_and_wrong_ones_refused(  # noqa: PLR0917  # fixtures
    cluster: ControlPlane,
    namespace: str,
    arguments: list[str],
    tmp_path: Path,
    eventually: Eventually,
    record_property: Callable[[str, object], None],
) -> None:
    cluster.apply(config_map(namespace, config(namespace).to_json()))
    with running(tmp_path / "router", "router", *arguments) as router:
        taken = []
        for number in range(10):
            policy = ("round-robin", "random", "sal")[number % 3]
            edited = config(namespace, scheduling={"policy": policy})
            cluster.apply(config_map(namespace, edited.to_json()))
            written = time.monotonic()
            eventually(lambda wanted=edited.hash: status(router)["config"]["hash"] == wanted)
            taken.append(time.monotonic() - written)
            assert status(router)["policy"] == policy
        record_property("edit to applied, median seconds", median(taken))

        good = status(router)["config"]
        cluster.apply(config_map(namespace, edited.to_json().replace('"round-robin"', '"wrong"')))
        eventually(lambda: status(router)["config"]["error"])
        assert status(router)["config"] == {**good, "error": status(router)["config"]["error"]}
        cluster.kubectl("delete", "configmap", "-n", namespace, "m-router")
        eventually(lambda: "does not exist" in status(router)["config"]["error"])
        assert readiness(router) == 200
        cluster.apply(config_map(namespace, edited.to_json()))
        eventually(lambda: status(router)["config"]["error"] is None)


def test_a_router_that_starts_while_the_api_server_is_away_serves_what_it_knew(
    cluster: ControlPlane, namespace: str, arguments: list[str], tmp_path: Path, eventually: Eventually
) -> None:
    mounted, state = tmp_path / "mounted", tmp_path / "state"
    mounted.mkdir()
    state.mkdir()
    arguments += ["--mounted", str(mounted), "--state-dir", str(state)]
    document = config(namespace, scheduling={"policy": "random"})
    (mounted / CONFIG_MAP_KEY).write_text(document.to_json())
    cluster.apply(config_map(namespace, document.to_json()))
    cluster.apply(slices(namespace, SLICE_PORT, "pod-a"))
    with running(tmp_path / "first", "router", *arguments) as router:
        eventually(lambda: ready_replicas(router) == 1)
        with cluster.without_api_server():
            assert replicas(router) == {"pod-a": "Ready"}
            with running(tmp_path / "second", "router", *arguments) as second:
                eventually(lambda: readiness(second) == 200)
                assert replicas(second) == {"pod-a": "Ready"}
                assert status(second)["policy"] == "random"
                assert readiness(router) == 200
        edited = config(namespace, scheduling={"policy": "sal"})
        cluster.apply(config_map(namespace, edited.to_json()), slices(namespace, SLICE_PORT, "pod-b"))
        eventually(lambda: status(router)["config"]["hash"] == edited.hash, 60)
        eventually(lambda: replicas(router) == {"pod-b": "Ready"}, 60)


def test_a_sidecar_without_rights_forwards_to_its_own_pod(
    cluster: ControlPlane, namespace: str, arguments: list[str], tmp_path: Path, eventually: Eventually
) -> None:
    cluster.kubectl("delete", "rolebinding", "-n", namespace, "m-router")
    with engine(tmp_path / "engine") as own:
        arguments.append(f"--fallback-engine=simulated=127.0.0.1:{own.port}")
        with running(tmp_path / "router", "router", *arguments) as router:
            eventually(lambda: readiness(router) == 200)
            assert ready_replicas(router) == 1
            eventually(lambda: "403" in (status(router)["config"]["error"] or ""))
