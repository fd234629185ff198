"""What was found out about engines and routers in the last round of scrapes; made by `rounds`, read by `status`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from halffull.controller.endpoints import Endpoint
from halffull.core.balance import Mark
from halffull.core.values import Signals


@dataclass(frozen=True, slots=True)
class RouterAnswer:
    """What a router said of itself."""

    document: Mapping[str, Any] | None = None
    """its `/status`; None: it could not be asked"""
    error: str = ""
    """why not"""

    @property
    def config(self) -> Mapping[str, Any]:
        """The part about the configuration it has applied."""
        part: Mapping[str, Any] = (self.document or {}).get("config") or {}
        return part


@dataclass(frozen=True, slots=True)
class Facts:
    """Engines and routers that exist now, and the latest that is known of each, by name."""

    engines: tuple[Endpoint, ...] = ()
    routers: tuple[Endpoint, ...] = ()
    signals: Mapping[str, Signals] = field(default_factory=dict)
    """of engines whose metrics could be read in the last round"""
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """how current each engine's metrics are; absent: never asked"""
    speeds: Mapping[str, float | None] = field(default_factory=dict)
    pressures: Mapping[str, float] = field(default_factory=dict)
    answers: Mapping[str, RouterAnswer] = field(default_factory=dict)
    """of routers"""
    desired: int | None = None
    """replicas that the load asks for"""
    engine_pods: int | None = None
    """pods that the engine Deployment counts, those without an address included; None: not ours"""

    def seen_by_routers(self, replica: str) -> list[Mapping[str, Any]]:
        """Return what each router says of a replica."""
        return [
            entry
            for answer in self.answers.values()
            for entry in (answer.document or {}).get("replicas", ())
            if entry.get("name") == replica
        ]


@dataclass(frozen=True, slots=True)
class Notes:
    """What a reconcile could not do as the resource says; each becomes a condition."""

    policy: tuple[str, str] | None = None
    """(reason, message): why the SchedulingPolicy that is named is not the one in force"""
    sidecar: str = ""
    """why no sidecar can be put into the adopted pods"""
    taken: tuple[str, ...] = ()
    """objects of somebody else that stand under a name that a child needs"""
    refused: tuple[str, ...] = ()
    """what the API server found wrong with children"""
    secrets: tuple[str, ...] = ()
    """Secrets or keys that are named and not there, in sentences"""
    sharers: tuple[str, ...] = ()
    """other ModelDeployments that adopt the same pods"""
