"""Conditions in the shape of metav1.Condition; used by the status of both resources."""

from collections.abc import Sequence
from typing import Any

Condition = dict[str, Any]


def condition(
    previous: Sequence[Condition], kind: str, *, status: bool, reason: str, message: str, generation: int, now: str
) -> Condition:
    """Return condition `kind`; `lastTransitionTime` is kept from `previous` while `status` stays the same."""
    text = "True" if status else "False"
    same = next((c for c in previous if c["type"] == kind and c["status"] == text), None)
    return {
        "type": kind,
        "status": text,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": same["lastTransitionTime"] if same else now,
    }


def find(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """Return the condition of that type, or None."""
    return next((c for c in conditions if c["type"] == kind), None)
