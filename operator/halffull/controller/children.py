"""Brings the children of a ModelDeployment to what they are to be: apply what differs, delete what is too many.

Called by `reconcile`. An object that stands under a child's name but is not the owner's is left alone and reported.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from halffull.controller.child import digest
from halffull.controller.kube import ApiError, Kube
from halffull.controller.names import OWNER_LABEL, Key, Ref
from halffull.controller.observed import Child, Observed, child_of
from halffull.controller.records import Applied, Outcome, Record

Document = dict[str, Any]


async def apply(kube: Kube, observed: Observed, record: Record, key: Key, objects: Iterable[Document]) -> Outcome:
    """Apply each object that is not as it was applied last. Raises ApiError where trying again may help.

    One at which the server fails, as where a webhook of its kind is down, keeps none of the others back.
    """
    taken, refused, failed = [], [], None
    for document in objects:
        ref = Ref.of(document)
        there = observed.children[key].get(ref)
        sent = digest(document)
        last = record.applied.get(ref)
        if there and last and last == Applied(sent, there.version):
            continue
        if there is None and not await _free(kube, record.uid, document):
            taken.append(f"{ref.kind} {ref.name}")
            continue
        if there is not None:
            wait_for_predecessor(there, record.uid, ref)
        try:
            after = child_of(await kube.apply(document))
        except ApiError as error:
            if error.refusal:
                refused.append(f"{ref.kind} {ref.name}: {error}")
            elif error.status >= 500:
                failed = error
            else:
                raise
        else:
            record.applied[ref] = Applied(sent, after.version)
    if failed is not None:
        raise failed
    return Outcome(tuple(taken), tuple(refused))


async def create_once(kube: Kube, record: Record, document: Document) -> Outcome:
    """Create an object that is never applied again; return what stands in its way.

    Raises ApiError where trying again may help, also while that of a predecessor is there.
    """
    ref = Ref.of(document)
    try:
        if await kube.create(document) is None and not await _free(kube, record.uid, document):
            return Outcome(taken=(f"{ref.kind} {ref.name}",))
    except ApiError as error:
        if not error.refusal:
            raise
        return Outcome(refused=(f"{ref.kind} {ref.name}: {error}",))
    return Outcome()


async def _free(kube: Kube, uid: str, document: Mapping[str, Any]) -> bool:
    """Whether nobody else's object has the name. Raises ApiError if that of a predecessor has it still."""
    metadata = document["metadata"]
    existing = await kube.get(document["kind"], metadata["namespace"], metadata["name"])
    if existing is None:
        return True
    labels = existing["metadata"].get("labels") or {}
    if labels.get(OWNER_LABEL) != metadata["labels"][OWNER_LABEL]:
        return False
    wait_for_predecessor(child_of({**existing, "kind": document["kind"]}), uid, Ref.of(document))
    return True


def wait_for_predecessor(there: Child, uid: str, ref: Ref) -> None:
    """Raise ApiError if a child belongs to a deleted ModelDeployment of the same name: it will be collected soon."""
    if there.owner not in {"", uid}:
        raise ApiError(409, f"{ref.kind} {ref.name} of a ModelDeployment that was deleted is still there")


def surplus(children: Mapping[Ref, Child], uid: str, objects: Iterable[Mapping[str, Any]]) -> dict[Ref, Child]:
    """Return the children of the owner with that uid which are not to be; pure."""
    wanted = {Ref.of(document) for document in objects}
    return {ref: child for ref, child in children.items() if ref not in wanted and child.owner == uid}


async def prune(kube: Kube, observed: Observed, record: Record, key: Key, objects: Iterable[Document]) -> None:
    """Delete the children that are not to be. Raises ApiError."""
    for ref, child in surplus(observed.children[key], record.uid, objects).items():
        await kube.delete(ref.kind, key.namespace, ref.name, uid=child.uid)
        record.applied.pop(ref, None)
