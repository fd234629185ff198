"""Keeps `observed` true: takes events in their order, and from time to time compares with complete lists.

`handlers` hands events in; `app` lists at the start, so that nothing is judged before everything was seen.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from halffull.controller.kube import Document, Kube
from halffull.controller.names import OWNER_LABEL, Key
from halffull.controller.observed import SERVICE_LABEL, Observed


class Watched(NamedTuple):
    """A kind that the operator watches."""

    group: str
    version: str
    plural: str
    kind: str
    owned: bool = True
    """only objects with our owner label"""


WATCHED = (
    Watched("halffull.dev", "v1alpha1", "schedulingpolicies", "SchedulingPolicy", owned=False),
    Watched("halffull.dev", "v1alpha1", "modeldeployments", "ModelDeployment", owned=False),
    Watched("", "v1", "configmaps", "ConfigMap"),
    Watched("", "v1", "services", "Service"),
    Watched("", "v1", "serviceaccounts", "ServiceAccount"),
    Watched("apps", "v1", "deployments", "Deployment"),
    Watched("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Watched("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    Watched("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Watched("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
)


class Item(NamedTuple):
    """What the queue works on."""

    kind: str
    """ModelDeployment, SchedulingPolicy, or Sweep for a namespace's sidecars"""
    key: Key


class Picture:
    """`observed`, and how new each object in it is."""

    def __init__(self, observed: Observed) -> None:
        self.observed = observed
        self._seen: dict[tuple[str, Key], Document] = {}
        """metadata: just enough to know what an object was once it is gone"""

    def take(self, kind: str, event: str | None, document: Document) -> set[Item]:
        """Take one event; return what it wakes: nothing where the same or a newer state was seen."""
        document = {**document, "kind": kind}
        metadata = document["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        before = self._seen.get((kind, key))
        version = int(metadata["resourceVersion"])
        if event == "DELETED":
            if before is None or before["resourceVersion"] > version:
                return set()
            del self._seen[kind, key]
        elif before is not None and before["resourceVersion"] >= version:
            return set()
        else:
            labels = metadata.get("labels") or {}
            kept = {label: labels[label] for label in (OWNER_LABEL, SERVICE_LABEL) if label in labels}
            self._seen[kind, key] = {
                "namespace": key.namespace,
                "name": key.name,
                "uid": metadata["uid"],
                "labels": kept,
                "resourceVersion": version,
            }
        return _wakes(self.observed, event, key, document)

    def compare(self, kind: str, namespace: str | None, version: int, documents: Sequence[Document]) -> set[Item]:
        """Take a complete list, of one namespace or of all, read at `version`; what it lacks is gone."""
        woken: set[Item] = set()
        for document in documents:
            woken |= self.take(kind, None, document)
        listed = {Key(d["metadata"]["namespace"], d["metadata"]["name"]) for d in documents}
        for (other, key), metadata in list(self._seen.items()):
            if other != kind or key in listed or namespace not in {None, key.namespace}:
                continue
            if metadata["resourceVersion"] <= version:
                woken |= self.take(kind, "DELETED", {"metadata": {**metadata, "resourceVersion": version}, "spec": {}})
        return woken

    async def refresh(self, kube: Kube, namespaces: Iterable[str | None]) -> set[Item]:
        """List every watched kind; return what woke. Raises ApiError, with status 404 where a kind is not installed."""
        woken: set[Item] = set()
        for watched in WATCHED:
            for namespace in namespaces:
                labels = OWNER_LABEL if watched.owned else None
                version, documents = await kube.snapshot(watched.kind, namespace, labels=labels)
                woken |= self.compare(watched.kind, namespace, version, documents)
        return woken


def _wakes(observed: Observed, event: str | None, key: Key, document: Document) -> set[Item]:
    match document["kind"]:
        case "ModelDeployment":
            named = {_policy(observed.deployments.get(key)), _policy(document)} - {""}
            woken = {Item("SchedulingPolicy", Key(key.namespace, name)) for name in named}
            woken |= {Item("ModelDeployment", k) for k in observed.saw_deployment(event, document)}
            return woken | ({Item("Sweep", Key(key.namespace, ""))} if event == "DELETED" else set())
        case "SchedulingPolicy":
            users = {Item("ModelDeployment", user) for user in observed.saw_policy(event, document)}
            return users | {Item("SchedulingPolicy", key)}
        case "EndpointSlice":
            return {Item("ModelDeployment", owner) for owner in observed.saw_slice(event, document)}
        case _:
            return {Item("ModelDeployment", owner) for owner in observed.saw_child(event, document)}


def _policy(document: Document | None) -> str:
    """Return the name of the SchedulingPolicy that a ModelDeployment names, or an empty text."""
    return str((((document or {}).get("spec") or {}).get("schedulingPolicyRef") or {}).get("name", ""))
