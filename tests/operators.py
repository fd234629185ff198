"""What tests of the operator on a real API server share: the process itself, a ModelDeployment, and made-up endpoints."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cluster.control_plane import ControlPlane, KubectlError
from processes import Running, running

GROUP = "halffull.dev/v1alpha1"
CHILDREN = "deploy,svc,cm,pdb,sa,role,rolebinding,secret"


@contextlib.contextmanager
def operator(folder: Path, cluster: ControlPlane, namespace: str, *arguments: str) -> Iterator[Running]:
    """Run the operator for one namespace, with its Lease there; for all where it is empty."""
    defaults = ["--kubeconfig", str(cluster.kubeconfig), "--router-image", "halffull:test"]
    if namespace:
        defaults += ["--namespace", namespace, "--lease", f"{namespace}/halffull-operator"]
    with running(folder, "operator", *defaults, *arguments) as process:
        yield process


def model_deployment(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """A ModelDeployment of simulated engines, with `spec` over the defaults."""
    defaults = {"model": "m", "engine": {"type": "simulated", "template": {}}}
    return {
        "apiVersion": GROUP,
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**defaults, **spec},
    }


def scheduling_policy(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": GROUP,
        "kind": "SchedulingPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def machine_address() -> str:
    """An address of this machine that an EndpointSlice may hold: not loopback. Empty where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing; asks the routing table for the source address
        address = str(probe.getsockname()[0])
        return "" if address.startswith("127.") else address
    return ""


def endpoint_slice(  # noqa: PLR0917
    namespace: str, owner: str, service: str, pod: str, address: str, port: int, port_name: str
) -> dict[str, Any]:
    """What the endpoints controller would make of one ready pod of a headless Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-{pod}",
            "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": service,
                "halffull.dev/model-deployment": owner,
                "endpointslice.kubernetes.io/managed-by": "halffull-tests",
            },
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace},
            }
        ],
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
    }


class Seen:
    """What the API server says of one namespace."""

    def __init__(self, cluster: ControlPlane, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def get(self, what: str, name: str) -> Any:
        """An object, or None."""
        try:
            return self.cluster.get("-n", self.namespace, what, name)
        except KubectlError as error:
            if "NotFound" in str(error):
                return None
            raise

    def condition(self, name: str, kind: str, what: str = "mdep") -> tuple[str, str]:
        """(status, reason) of a condition."""
        status = (self.get(what, name) or {}).get("status", {})
        found = [c for c in status.get("conditions", ()) if c["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")

    def config(self, name: str) -> Any:
        """The RouterConfig that is published, or an empty document."""
        document = self.get("cm", f"{name}-router")
        return json.loads(document["data"]["router.json"]) if document else {}

    def children(self, owner: str) -> set[str]:
        """KIND/NAME of every child of a ModelDeployment."""
        label = f"halffull.dev/model-deployment={owner}"
        items = self.cluster.get("-n", self.namespace, CHILDREN, "-l", label)["items"]
        return {f"{item['kind']}/{item['metadata']['name']}" for item in items}

    def patch(self, name: str, spec: str, what: str = "mdep") -> None:
        """JSON-merge patch of `spec`."""
        self.cluster.kubectl("-n", self.namespace, "patch", what, name, "--type=merge", "-p", f'{{"spec": {spec}}}')


Eventually = Callable[..., None]
