"""Conditions in the shape of metav1.Condition; used by the status of both resources."""

from collections.abc import Mapping
from typing import Any, Literal

from halffull.api.status import Condition


class Conditions:
    """Makes the conditions of one status; knows those of the status before and the time."""

    def __init__(self, previous: Mapping[str, Any], generation: int, now: str) -> None:
        """`previous` is the status document as it was written last; `now` is RFC 3339, seconds."""
        self._previous = {condition["type"]: condition for condition in previous.get("conditions") or ()}
        self._generation = generation
        self._now = now

    def true(self, kind: str, reason: str, message: str) -> Condition:
        """Return condition `kind`, which holds."""
        return self._make(kind, "True", reason, message)

    def false(self, kind: str, reason: str, message: str) -> Condition:
        """Return condition `kind`, which does not hold."""
        return self._make(kind, "False", reason, message)

    def _make(self, kind: str, status: Literal["True", "False"], reason: str, message: str) -> Condition:
        """Return the condition; its `lastTransitionTime` stays as long as `status` does."""
        before = self._previous.get(kind)
        return Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            observed_generation=self._generation,
            last_transition_time=before["lastTransitionTime"] if before and before["status"] == status else self._now,
        )


def holds(status: Mapping[str, Any], kind: str) -> bool:
    """Whether a status document states condition `kind`."""
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions") or ())
