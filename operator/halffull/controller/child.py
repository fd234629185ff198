"""What all child objects share: their metadata, with the owner that garbage collection follows. Used by the builders."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from halffull.api.model_deployment import ModelDeployment
from halffull.controller.names import API_VERSION, labels

Document = dict[str, Any]
TEMPLATE_HASH = "halffull.dev/template-hash"
"""annotation of a workload: hash of its pod template without the images that we chose"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator's command line says about children."""

    image: str
    """halffull's own image: routers, sidecars and simulated engines"""
    patch_adopted: bool = False
    """whether sidecars may be put into workloads that are not ours"""


@dataclass(frozen=True, slots=True)
class Live:
    """A workload as it is in the cluster: what must not change just because the operator did."""

    template_hash: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    """by container"""

    def image(self, container: str, template_hash: str, fresh: str) -> str:
        """Return the image that `container` keeps while its pod template is the same, or else `fresh`."""
        return self.images.get(container, fresh) if template_hash == self.template_hash else fresh


def child(owner: ModelDeployment, api_version: str, kind: str, name: str, component: str, **content: Any) -> Document:
    """Return an object that belongs to `owner`, with `content` beside its metadata."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner.metadata.namespace,
            "labels": labels(owner.metadata.name, component),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "ModelDeployment",
                    "name": owner.metadata.name,
                    "uid": owner.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        **content,
    }


def disruption_budget(
    owner: ModelDeployment, name: str, component: str, selector: Mapping[str, str], max_unavailable: int | str
) -> Document:
    """Return the PodDisruptionBudget of one component. Pods that are not ready never block a drain."""
    spec = {
        "maxUnavailable": max_unavailable,
        "selector": {"matchLabels": dict(selector)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return child(owner, "policy/v1", "PodDisruptionBudget", name, component, spec=spec)


def digest(document: Any) -> str:
    """Return a short hash of a JSON document."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
