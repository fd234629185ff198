"""What the operator knows of the cluster from its watches; fed by `picture`, read by `reconcile`, `policies` and `rounds`.

Each `saw_...` takes one event and returns the ModelDeployments that it concerns, to be woken.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from halffull.controller.endpoints import Endpoint, from_addresses, from_slices
from halffull.controller.names import ADMIN_PORT, OWNER_LABEL, Key, Ref, engine_service, peer_service

Document = dict[str, Any]
SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Child:
    """One object that carries our owner label."""

    uid: str
    version: str
    """its generation, or its resourceVersion where it has none: changes with what we apply, not with its status"""
    owner: str
    """uid of the ModelDeployment that it belongs to; empty: none"""
    document: Document = field(default_factory=dict, compare=False)
    """of a Deployment: its status, annotations and pod template's images; else empty"""


@dataclass
class Observed:
    """The picture: resources as they are, children by owner, and the EndpointSlices of our Services."""

    deployments: dict[Key, Document] = field(default_factory=dict)
    """ModelDeployments"""
    policies: dict[Key, Document] = field(default_factory=dict)
    """SchedulingPolicies"""
    children: defaultdict[Key, dict[Ref, Child]] = field(default_factory=lambda: defaultdict(dict))
    _slices: dict[Key, dict[str, Document]] = field(default_factory=dict)
    """by Service; of those that have any"""
    _adopters: defaultdict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    """ModelDeployments whose engine Service lists a pod"""
    _pods: dict[Key, set[Key]] = field(default_factory=dict)
    """pods that the engine Service of a ModelDeployment lists"""

    def saw_deployment(self, kind: str | None, document: Document) -> set[Key]:
        """Take an event of a ModelDeployment; return it, unless only its status changed."""
        key = key_of(document)
        if kind == "DELETED":
            self.deployments.pop(key, None)
            return {key}
        before = self.deployments.get(key)
        self.deployments[key] = document
        return {key} if before is None or _version(before) != _version(document) else set()

    def saw_policy(self, kind: str | None, document: Document) -> set[Key]:
        """Take an event of a SchedulingPolicy; return the ModelDeployments that name it."""
        key = key_of(document)
        if kind == "DELETED":
            self.policies.pop(key, None)
        else:
            before = self.policies.get(key)
            self.policies[key] = document
            if before is not None and _version(before) == _version(document):
                return set()
        return set(self.users(key))

    def saw_child(self, kind: str | None, document: Document) -> set[Key]:
        """Take an event of a child; return its owner if the child is not as it was."""
        metadata = document["metadata"]
        owner = Key(metadata["namespace"], metadata["labels"][OWNER_LABEL])
        ref = Ref.of(document)
        before = self.children[owner].get(ref)
        if kind == "DELETED":
            if before is not None and before.uid == metadata["uid"]:
                del self.children[owner][ref]
            return {owner}
        after = child_of(document)
        self.children[owner][ref] = after
        return {owner} if before != after or before.document != after.document else set()

    def saw_slice(self, kind: str | None, document: Document) -> set[Key]:
        """Take an event of an EndpointSlice; return its owner, and those that adopt the same pods."""
        metadata = document["metadata"]
        owner = Key(metadata["namespace"], metadata["labels"][OWNER_LABEL])
        service = Key(metadata["namespace"], metadata["labels"].get(SERVICE_LABEL, ""))
        slices = self._slices.setdefault(service, {})
        if kind == "DELETED":
            slices.pop(metadata["name"], None)
        else:
            slices[metadata["name"]] = document
        if not slices:
            del self._slices[service]
        if service.name != engine_service(owner.name):
            return {owner}
        return {owner} | self._adopt(owner)

    def _adopt(self, owner: Key) -> set[Key]:
        """Note which pods `owner` has now; return who shares, or shared, a pod with it."""
        before = self._pods.get(owner, set())
        after = {Key(owner.namespace, name) for name in _pods(self._slices_of(service_of(owner)))}
        self._pods[owner] = after
        if not after:
            del self._pods[owner]
        concerned: set[Key] = set()
        for pod in before - after:
            concerned |= self._adopters[pod]
            self._adopters[pod].discard(owner)
            if not self._adopters[pod]:
                del self._adopters[pod]
        for pod in after - before:
            concerned |= self._adopters[pod]
            self._adopters[pod].add(owner)
        return concerned - {owner}

    def users(self, policy: Key) -> list[Key]:
        """Return the ModelDeployments that name a SchedulingPolicy."""
        return sorted(
            key
            for key, document in self.deployments.items()
            if key.namespace == policy.namespace
            and (document["spec"].get("schedulingPolicyRef") or {}).get("name") == policy.name
        )

    def engines_of(self, owner: Key, document: Mapping[str, Any]) -> tuple[Endpoint, ...]:
        """Return the engines of a ModelDeployment: its pods, or its fixed endpoints."""
        engine = document["spec"]["engine"]
        if engine.get("endpoints"):
            return from_addresses(engine["endpoints"])
        return from_slices(self._slices_of(service_of(owner)), "http", engine.get("port", 8000))

    def routers(self, owner: Key) -> tuple[Endpoint, ...]:
        """Return the routers of a ModelDeployment, with their admin ports."""
        service = Key(owner.namespace, peer_service(owner.name))
        return from_slices(self._slices_of(service), "admin", ADMIN_PORT)

    def sharers(self, owner: Key) -> list[str]:
        """Return the names of other ModelDeployments that adopt a pod of this one."""
        others = {other for pod in self._pods.get(owner, ()) for other in self._adopters[pod]}
        return sorted(other.name for other in others - {owner})

    def _slices_of(self, service: Key) -> Iterable[Document]:
        """Return the EndpointSlices of a Service."""
        return self._slices.get(service, {}).values()

    def forget(self, owner: Key) -> None:
        """Drop what is known of a ModelDeployment that is gone; its children leave by their own events."""
        if not self.children.get(owner):
            self.children.pop(owner, None)


def key_of(document: Mapping[str, Any]) -> Key:
    """Return namespace and name of an object."""
    return Key(document["metadata"]["namespace"], document["metadata"]["name"])


def service_of(owner: Key) -> Key:
    """Return the headless Service of a ModelDeployment's engines."""
    return Key(owner.namespace, engine_service(owner.name))


def child_of(document: Document) -> Child:
    """Return what is kept of a child."""
    metadata = document["metadata"]
    owners = metadata.get("ownerReferences") or ()
    kept: Document = {}
    if document["kind"] == "Deployment":
        status = document.get("status") or {}
        kept = {
            "annotations": metadata.get("annotations") or {},
            "images": images(document),
            "replicas": status.get("replicas", 0),
        }
    version = str(metadata.get("generation") or metadata["resourceVersion"])
    controller = next((owner["uid"] for owner in owners if owner.get("controller")), "")
    return Child(metadata["uid"], version, controller, kept)


def images(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the image of each container of a workload's pod template."""
    spec = document["spec"]["template"]["spec"]
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    return {container["name"]: container.get("image", "") for container in containers}


def _version(document: Document) -> tuple[Any, ...]:
    metadata = document["metadata"]
    return metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp")


def _pods(slices: Iterable[Document]) -> set[str]:
    return {
        entry["targetRef"]["name"]
        for document in slices
        for entry in document.get("endpoints") or ()
        if (entry.get("targetRef") or {}).get("kind") == "Pod"
    }
