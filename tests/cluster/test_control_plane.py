"""The control plane that other tests stand on: it answers, collects garbage, and survives its API server."""

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from cluster.control_plane import ControlPlane, KubectlError

pytestmark = pytest.mark.cluster


def config_map(name: str, **metadata: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


def test_controllers_run(cluster: ControlPlane, namespace: str, eventually: Callable[..., None]) -> None:
    cluster.apply(config_map("owner", namespace=namespace))
    owner = cluster.get("configmap", "owner", "-n", namespace)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    cluster.apply(config_map("child", namespace=namespace, ownerReferences=[reference]))
    cluster.kubectl("delete", "configmap", "owner", "-n", namespace)

    def names(kind: str) -> list[str]:
        return [item["metadata"]["name"] for item in cluster.get(kind, "-n", namespace)["items"]]

    eventually(lambda: "child" not in names("configmaps"))
    eventually(lambda: "default" in names("serviceaccounts"))
    cluster.kubectl("create", "token", "default", "-n", namespace)


def test_refused_documents_say_why(cluster: ControlPlane, namespace: str) -> None:
    with pytest.raises(KubectlError, match="Invalid value"):
        cluster.apply(config_map("Not_A_Name", namespace=namespace))


def test_state_survives_the_api_server(cluster: ControlPlane, namespace: str) -> None:
    cluster.apply(config_map("kept", namespace=namespace))
    address = urlsplit(cluster.server)
    with (
        cluster.without_api_server(),
        pytest.raises(ConnectionRefusedError),
        socket.create_connection((address.hostname, address.port)),
    ):
        pass
    assert cluster.get("configmap", "kept", "-n", namespace)["metadata"]["name"] == "kept"


def test_a_frozen_api_server_takes_connections_and_says_nothing(cluster: ControlPlane, namespace: str) -> None:
    with cluster.frozen_api_server(), pytest.raises(KubectlError, match=r"(?i)timeout|deadline|timed out"):
        cluster.kubectl("get", "configmaps", "-n", namespace, "--request-timeout=1s")
    cluster.get("configmaps", "-n", namespace)
