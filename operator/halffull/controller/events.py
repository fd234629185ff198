"""Kubernetes Events about our resources: what happened, for `kubectl describe`. Built here, posted by `tell`.

An Event that repeats is one object whose `series` counts, so its name comes from what it says.
"""

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from halffull.controller.names import API_VERSION

NOTE_LIMIT = 1024
"""longest note that the API server takes, in bytes"""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something worth an Event."""

    reason: str
    """CamelCase, stable"""
    action: str
    """what was done, CamelCase"""
    note: str
    """a sentence for people"""
    type: Literal["Normal", "Warning"] = "Normal"


def timestamp(now: dt.datetime) -> str:
    """Return `now` (UTC) as Kubernetes' MicroTime."""
    return now.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def event(about: Mapping[str, Any], happening: Happening, reporter: str, now: dt.datetime) -> dict[str, Any]:
    """Return the Event that tells of `happening` to the object `about`; `reporter` is the operator's pod."""
    metadata = about["metadata"]
    said = "\0".join((metadata["uid"], happening.reason, happening.note))
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "eventTime": timestamp(now),
        "type": happening.type,
        "reason": happening.reason,
        "action": happening.action,
        "note": happening.note.encode()[:NOTE_LIMIT].decode(errors="ignore"),
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": about["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
        "reportingController": "halffull.dev/operator",
        "reportingInstance": reporter,
    }


def repeated(existing: Mapping[str, Any], now: dt.datetime) -> dict[str, Any]:
    """Return the merge patch that counts one more occurrence of an Event that exists."""
    count = (existing.get("series") or {}).get("count", 1) + 1
    return {"series": {"count": count, "lastObservedTime": timestamp(now)}}
