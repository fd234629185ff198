"""Names and labels of everything the operator makes; read by the builders of `desired`, by `observed` and by `kube`.

A ModelDeployment's name has at most 45 characters, so that every suffix here fits in a DNS label.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

FIELD_MANAGER = "halffull"
OWNER_LABEL = "halffull.dev/model-deployment"
GROUP = "halffull.dev"
API_VERSION = "halffull.dev/v1alpha1"
CONFIG_KEY = "router.json"
"""key of the RouterConfig in its ConfigMap"""
ROUTER_PORT = 8100
ADMIN_PORT = 8101
PEER_PORT = 8102
"""of a router pod's first worker, where other routers connect; each further worker has the next"""
SIDECAR = "halffull-router"
"""name of the native sidecar container in an engine pod"""


class Key(NamedTuple):
    """Which custom resource."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Ref(NamedTuple):
    """Which child object of a ModelDeployment."""

    kind: str
    name: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Ref":
        """Return the reference to `document`."""
        return cls(document["kind"], document["metadata"]["name"])


def engine_deployment(name: str) -> str:
    """Name of the Deployment (and PodDisruptionBudget) of engine pods made from `engine.template`."""
    return f"{name}-engine"


def engine_service(name: str) -> str:
    """Name of the headless Service whose EndpointSlices list the engine pods."""
    return f"{name}-engines"


def router(name: str) -> str:
    """Name of the router's Deployment, ConfigMap, Secret, ServiceAccount, Role, RoleBinding and PodDisruptionBudget."""
    return f"{name}-router"


def peer_service(name: str) -> str:
    """Name of the headless Service whose EndpointSlices list the routers."""
    return f"{name}-peers"


def labels(name: str, component: str) -> dict[str, str]:
    """Labels of a child of ModelDeployment `name`; `component` is `router` or `engine`."""
    return {
        "app.kubernetes.io/name": "halffull",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "halffull",
        OWNER_LABEL: name,
    }


def selector(name: str, component: str) -> dict[str, str]:
    """Labels that select the pods of one component; a subset of `labels` that never changes."""
    return {"app.kubernetes.io/component": component, OWNER_LABEL: name}
