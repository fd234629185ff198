"""Brings the children of a ModelDeployment to what they are to be: apply what differs, delete what is too many.

Called by `reconcile`. An object that stands under a child's name but is not the owner's is left alone and reported.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from halffull.controller.child import digest
from halffull.controller.kube import ApiError, Kube
from halffull.controller.names import Key, Ref
from halffull.controller.observed import Child, Observed, child_of
from halffull.controller.records import Applied, Outcome, Record

Document = dict[str, Any]


async def apply(kube: Kube, observed: Observed, record: Record, key: Key, objects: Iterable[Document]) -> Outcome:
    """Apply each object that is not as it was applied last. Raises ApiError where trying again may help."""
    taken, refused = [], []
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
        try:
            after = child_of(await kube.apply(document))
        except ApiError as error:
            if not error.refusal:
                raise
            refused.append(f"{ref.kind} {ref.name}: {error}")
        else:
            record.applied[ref] = Applied(sent, after.version)
    return Outcome(tuple(taken), tuple(refused))


async def _free(kube: Kube, uid: str, document: Mapping[str, Any]) -> bool:
    """Whether nobody else's object has the name."""
    metadata = document["metadata"]
    existing = await kube.get(document["kind"], metadata["namespace"], metadata["name"])
    return existing is None or child_of(existing).owner == uid


def surplus(children: Mapping[Ref, Child], uid: str, objects: Iterable[Mapping[str, Any]]) -> dict[Ref, Child]:
    """Return the children of the owner with that uid which are not to be; pure."""
    wanted = {Ref.of(document) for document in objects}
    return {ref: child for ref, child in children.items() if ref not in wanted and child.owner == uid}


async def prune(kube: Kube, observed: Observed, record: Record, key: Key, objects: Iterable[Document]) -> None:
    """Delete the children that are not to be. Raises ApiError."""
    for ref, child in surplus(observed.children[key], record.uid, objects).items():
        await kube.delete(ref.kind, key.namespace, ref.name, uid=child.uid)
        record.applied.pop(ref, None)
