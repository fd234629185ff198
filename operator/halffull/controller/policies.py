"""Reconciles SchedulingPolicies: only their status, from how far their users are. Run by the keyed queue."""

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from halffull.controller.kube import Kube
from halffull.controller.names import API_VERSION, Key
from halffull.controller.observed import Observed
from halffull.controller.policy_status import policy_status
from halffull.controller.records import Record, Records
from halffull.controller.status import write_after

Document = dict[str, Any]


class PolicyReconciler:
    """Writes the status of SchedulingPolicies."""

    def __init__(
        self, kube: Kube, observed: Observed, records: Records, wake_later: Callable[[Key, float], None]
    ) -> None:
        self._kube = kube
        self._observed = observed
        self._records = records
        self._wake_later = wake_later
        self._written: dict[Key, tuple[str, Document, float]] = {}
        """of each SchedulingPolicy its uid, the status written last, and when"""

    async def reconcile(self, key: Key) -> None:
        """Write the status of one SchedulingPolicy, if it changed. Raises ApiError."""
        document = self._observed.policies.get(key)
        if document is None or document["metadata"].get("deletionTimestamp"):
            self._written.pop(key, None)
            return
        now = asyncio.get_running_loop().time()
        uid, before, at = self._written.get(key, ("", {}, float("-inf")))
        if uid != document["metadata"]["uid"]:  # not written yet, or the name is used anew
            uid, before, at = document["metadata"]["uid"], document.get("status") or {}, float("-inf")
        users = {user.name: self._behind(user, document) for user in self._observed.users(key)}
        if any(why is None for why in users.values()):
            return  # just started: the users' first rounds wake us
        stamp = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        whys = {name: why or "" for name, why in users.items()}
        made = policy_status(document["metadata"]["generation"], whys, before, stamp).dump()
        delay = write_after(before or None, made, now - at)
        if delay is None:
            return
        if delay > 0:
            self._wake_later(key, delay)
            return
        metadata = {"name": key.name, "namespace": key.namespace, "uid": uid}
        await self._kube.apply_status(
            {"apiVersion": API_VERSION, "kind": "SchedulingPolicy", "metadata": metadata, "status": made}
        )
        self._written[key] = (uid, made, now)

    def _behind(self, user: Key, policy: Mapping[str, Any]) -> str | None:
        """Return why a user does not schedule by the policy yet; empty: it does; None: not known yet."""
        record = self._records.get(user)
        if record is None or (record.decision is None and record.status_at is None):
            return None
        return behind(record, policy["metadata"])


def behind(record: Record, policy: Mapping[str, Any]) -> str:
    """Return why the ModelDeployment of a record does not schedule by a policy; empty: it does; pure."""
    source = record.config.scheduling_policy if record.config else None
    if source is None or (source.uid, source.generation) != (policy["uid"], policy["generation"]):
        return "not published yet"
    found = next((c for c in record.status.get("conditions") or () if c["type"] == "PolicyApplied"), None)
    if found is None or record.status_hash != (record.config.hash if record.config else None):
        return "not told yet"
    return "" if found["status"] == "True" else str(found["reason"])
