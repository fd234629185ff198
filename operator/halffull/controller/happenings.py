"""Which Events a change of status is worth; pure. Called by `reconcile`, posted through `events`."""

from collections.abc import Mapping, Sequence
from typing import Any

from halffull.controller.conditions import holds
from halffull.controller.events import Happening
from halffull.core.balance import Act, Change

Document = Mapping[str, Any]
_WARNINGS = {Act.SUSPENDED, Act.DISTRUSTED}


def happenings(before: Document, after: Document, changes: Sequence[Change] = ()) -> list[Happening]:
    """Return what is to be told: policy applied, spec refused, replicas suspected and back, weights changed."""
    told = [
        Happening(
            change.act.value,
            "Rebalance",
            f"{change.replica} {change.reason}",
            "Warning" if change.act in _WARNINGS else "Normal",
        )
        for change in changes
    ]
    # it may be in force before a status could say that it is not yet
    anew = not holds(before, "PolicyApplied") or before.get("policy") != after.get("policy")
    if holds(after, "PolicyApplied") and anew:
        told.append(Happening("PolicyApplied", "Apply", _message(after, "PolicyApplied")))
    for kind, reasons, action in (
        ("PolicyApplied", {"PolicyNotFound", "PolicyInvalid", "RefusedByRouter"}, "Apply"),
        ("Ready", {"SpecRefused", "ChildRefused", "NameTaken"}, "Validate"),
        ("SidecarNotPossible", {"NotInjected"}, "Inject"),
        ("SecretsMissing", {"SecretNotFound"}, "Read"),
        ("EnginesShared", {"SelectorsOverlap"}, "Adopt"),
    ):
        reason = _reason(after, kind)
        if reason in reasons and reason != _reason(before, kind):
            told.append(Happening(reason, action, _message(after, kind), "Warning"))
    return told + _replicas(before, after)


def _replicas(before: Document, after: Document) -> list[Happening]:
    """Tell of replicas that fell silent while their pods are ready, and of those that came back."""
    was = {row["name"]: row["state"] for row in before.get("replicas") or ()}
    told = []
    for row in after.get("replicas") or ():
        name, state = row["name"], row["state"]
        if state == "Suspect" and was.get(name) not in {None, "Suspect"}:
            told.append(Happening("ReplicaSuspected", "Observe", f"{name} does not answer its routers", "Warning"))
        elif state == "Ready" and was.get(name) == "Suspect":
            told.append(Happening("ReplicaBack", "Observe", f"{name} answers its routers again"))
    return told


def _condition(status: Document, kind: str) -> Document:
    return next((c for c in status.get("conditions") or () if c["type"] == kind), {})


def _reason(status: Document, kind: str) -> str:
    return str(_condition(status, kind).get("reason", ""))


def _message(status: Document, kind: str) -> str:
    return str(_condition(status, kind).get("message", ""))
