"""Workloads that are adopted: whose pods `engine.selector` selects. Their arguments, and our sidecar in and out of them.

Called by `reconcile`, and at the start and at each deletion to take out sidecars that have lost their ModelDeployment.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from halffull.api.model_deployment import ModelDeployment
from halffull.controller.child import Settings
from halffull.controller.kube import ApiError, Kube
from halffull.controller.names import OWNER_LABEL
from halffull.controller.sidecar import SIDECAR_MANAGER, SIDECAR_OF, injection, withdrawal

LOG = logging.getLogger(__name__)
KINDS = ("Deployment", "StatefulSet")
DEFAULT_ACCOUNT = "default"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Injected:
    """How far sidecars are in the adopted workloads."""

    accounts: tuple[str, ...] = ()
    """ServiceAccounts of their pods, which get the router's rights"""
    problem: str = ""
    """why pods stay without; empty: they do not"""


def selects(labels: Mapping[str, str], workload: Mapping[str, Any]) -> bool:
    """Whether the pods of a workload, not one of ours, have these labels; pure."""
    if OWNER_LABEL in (workload["metadata"].get("labels") or {}):
        return False
    has = (workload["spec"]["template"].get("metadata") or {}).get("labels") or {}
    return all(has.get(key) == value for key, value in labels.items())


def account(workload: Mapping[str, Any]) -> str:
    """Return the ServiceAccount of a workload's pods; pure."""
    return str(workload["spec"]["template"]["spec"].get("serviceAccountName") or DEFAULT_ACCOUNT)


async def _mounts_token(kube: Kube, workload: Mapping[str, Any]) -> bool:
    """Whether the pods of a workload get a token of their ServiceAccount by themselves. Raises ApiError."""
    said = workload["spec"]["template"]["spec"].get("automountServiceAccountToken")
    if said is None:
        found = await kube.get("ServiceAccount", workload["metadata"]["namespace"], account(workload))
        said = (found or {}).get("automountServiceAccountToken", True)
    return bool(said)


async def inject(kube: Kube, owner: ModelDeployment, settings: Settings, missing: Sequence[str] = ()) -> Injected:
    """Put the sidecar into every workload that the selector selects. Raises ApiError where trying again may help.

    Not while Secrets are `missing` that it mounts: pods would not start. Sidecars that are there keep their rights.
    """
    selector = owner.spec.engine.selector
    if selector is None:
        return Injected()
    if not settings.patch_adopted:
        return Injected(
            problem="the operator may not patch workloads that are not its own (chart value adoptedWorkloads.patch)"
        )
    found = [
        workload
        for kind in KINDS
        for workload in await _list(kube, kind, owner.metadata.namespace)
        if selects(selector.match_labels, workload)
    ]
    if not found:
        return Injected(
            problem="no Deployment or StatefulSet makes pods with these labels, and bare pods cannot change"
        )
    wearers = [(workload["metadata"].get("labels") or {}).get(SIDECAR_OF) for workload in found]
    dressed = [workload for workload, of in zip(found, wearers, strict=True) if of == owner.metadata.name]
    for workload, of in zip(found, wearers, strict=True):
        if of not in {None, owner.metadata.name}:
            problem = f"{workload['kind']} {workload['metadata']['name']} has the sidecar of {of}"
            return Injected(_accounts(dressed), problem)
    if missing:
        return Injected(_accounts(dressed), f"it waits for what it mounts: {'; '.join(missing)}")
    refused = []
    for workload in found:
        try:
            made = injection(owner, workload, settings, token=not await _mounts_token(kube, workload))
            await kube.apply(made, field_manager=SIDECAR_MANAGER)
        except ApiError as error:
            if not error.refusal:
                raise
            refused.append(f"{workload['kind']} {workload['metadata']['name']} cannot have it: {error}")
    return Injected(_accounts(found), "; ".join(refused)[:4096])


def _accounts(workloads: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted({account(workload) for workload in workloads}))


async def sweep(kube: Kube, namespaces: Iterable[str | None]) -> int:
    """Take our sidecar out of workloads whose ModelDeployment is gone or wants none there; return how many.

    Raises ApiError.
    """
    swept = 0
    for namespace in namespaces:
        for kind in KINDS:
            for workload in await _list(kube, kind, namespace, labels=SIDECAR_OF):
                if not await _wanted(kube, workload):
                    metadata = workload["metadata"]
                    LOG.info("taking the sidecar out of %s %s/%s", kind, metadata["namespace"], metadata["name"])
                    await kube.apply(withdrawal(workload), field_manager=SIDECAR_MANAGER)
                    swept += 1
    return swept


async def _wanted(kube: Kube, workload: Mapping[str, Any]) -> bool:
    metadata = workload["metadata"]
    owner = await kube.get("ModelDeployment", metadata["namespace"], metadata["labels"][SIDECAR_OF])
    return owner is not None and wears(owner, workload)


def wears(owner: Mapping[str, Any], workload: Mapping[str, Any]) -> bool:
    """Whether a ModelDeployment (as a document) wants its sidecar in a workload; pure."""
    spec = owner["spec"]
    labels = (spec["engine"].get("selector") or {}).get("matchLabels")
    placement = (spec.get("router") or {}).get("placement")
    gone = owner["metadata"].get("deletionTimestamp")
    return labels is not None and placement == "Sidecar" and not gone and selects(labels, workload)


async def arguments(kube: Kube, owner: ModelDeployment) -> tuple[str, ...]:
    """Return command and arguments of the containers of one adopted pod, which may tell the engine's limits."""
    selector = owner.spec.engine.selector
    if selector is None:
        return ()
    labels = ",".join(f"{key}={value}" for key, value in sorted(selector.match_labels.items()))
    pods = await kube.items("Pod", owner.metadata.namespace, labels=labels, limit=1)
    return tuple(
        word
        for pod in pods[:1]
        for container in pod["spec"]["containers"]
        for word in (*(container.get("command") or ()), *(container.get("args") or ()))
    )


async def _list(kube: Kube, kind: str, namespace: str | None, labels: str | None = None) -> list[Document]:
    """Return workloads; the items of a list do not say their kind."""
    return [{**workload, "kind": kind} for workload in await kube.items(kind, namespace, labels=labels)]
