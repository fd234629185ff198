"""The router as a native sidecar container: in our own engine pods, and in Deployments and StatefulSets that are adopted.

Called by `desired` and, for adopted workloads, by `adoption`. A sidecar with no config or rights serves its own pod.
"""

from collections.abc import Mapping
from typing import Any

from halffull.api.model_deployment import ModelDeployment
from halffull.controller import names
from halffull.controller.child import TEMPLATE_HASH, Document, Live, Settings, digest
from halffull.controller.routers import RESTRICTED, container, volumes

SIDECAR_OF = "halffull.dev/sidecar-of"
"""label of an adopted workload, and of its pods, that carry our sidecar: the ModelDeployment that it serves"""
SIDECAR_MANAGER = "halffull-sidecar"
"""field manager of what we apply to adopted workloads"""
TOKEN = "halffull-token"  # noqa: S105 - a volume
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
TOKEN_SECONDS = 3607
"""life of a token, which the kubelet renews, as of those that pods get by themselves"""
USER = 65532
"""the sidecar's own user, since pods of GPU engines often run as root"""


def native_sidecar(owner: ModelDeployment, image: str) -> Document:
    """Return the router as an init container that restarts, so that it is there before and after the engine."""
    made = container(owner, names.SIDECAR, image)
    engine = owner.spec.engine
    made["args"] = [*made["args"], f"--fallback-engine={engine.type}=127.0.0.1:{engine.port}"]
    made["restartPolicy"] = "Always"
    made["securityContext"] = {**RESTRICTED, "runAsUser": USER}
    return made


def image(owner: ModelDeployment, settings: Settings) -> str:
    """Return the image that a new sidecar gets."""
    return owner.spec.router.image or settings.image


def injection(
    owner: ModelDeployment, workload: Mapping[str, Any], settings: Settings, *, token: bool = False
) -> Document:
    """Return what is applied, by SIDECAR_MANAGER, to an adopted Deployment or StatefulSet.

    The image stays as it was injected until the sidecar itself changes or `router.image` names another. `token`: its pods
    get none of their ServiceAccount by themselves, and the sidecar needs one.
    """
    made, mounted = native_sidecar(owner, ""), volumes(owner)
    if token:
        made["volumeMounts"].append({"name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": True})
        mounted.append(_token_volume())
    shape = digest([made, mounted])
    made["image"] = owner.spec.router.image or live(workload).image(names.SIDECAR, shape, image(owner, settings))
    document = withdrawal(workload)
    document["metadata"]["labels"] = {SIDECAR_OF: owner.metadata.name}
    document["metadata"]["annotations"] = {TEMPLATE_HASH: shape}
    document["spec"] = {
        "template": {
            "metadata": {"labels": {SIDECAR_OF: owner.metadata.name}},
            "spec": {"initContainers": [made], "volumes": mounted},
        }
    }
    return document


def _token_volume() -> Document:
    authority = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": authority},
    ]
    return {"name": TOKEN, "projected": {"sources": sources}}


def withdrawal(workload: Mapping[str, Any]) -> Document:
    """Return what, applied by SIDECAR_MANAGER, takes the sidecar out of a workload."""
    metadata = workload["metadata"]
    return {
        "apiVersion": "apps/v1",
        "kind": workload["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    }


def live(workload: Mapping[str, Any]) -> Live:
    """Return what must not change by itself in an adopted workload."""
    spec = workload["spec"]["template"]["spec"]
    images = {part["name"]: part.get("image", "") for part in spec.get("initContainers") or ()}
    return Live((workload["metadata"].get("annotations") or {}).get(TEMPLATE_HASH, ""), images)
