"""What the operator remembers of each ModelDeployment between reconciles; all of it can be lost and found again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from halffull.api.router_config import RouterConfig
from halffull.controller.facts import RouterAnswer
from halffull.controller.names import Key, Ref
from halffull.controller.scrape import Credentials
from halffull.core.balance import Change, Decision, Fleet
from halffull.core.scaling import Demand
from halffull.core.values import Signals

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Applied:
    """A child as it was applied last."""

    digest: str
    """of what was sent"""
    version: str
    """of what came back; see `observed.Child`"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What stood in the way of children."""

    taken: tuple[str, ...] = ()
    """KIND NAME of objects of somebody else under our names"""
    refused: tuple[str, ...] = ()
    """KIND NAME: what is wrong with a child, for instance by a podTemplatePatch"""


@dataclass
class Record:
    """One ModelDeployment."""

    uid: str
    config: RouterConfig | None = None
    """as published last; None: not read back yet"""
    published_at: float = float("-inf")
    """when what is published was last changed; by an earlier operator: long ago"""
    generation: int = 0
    """of the resource that the children were brought in order for"""
    applied: dict[Ref, Applied] = field(default_factory=dict)
    children_due: bool = True
    """whether children may differ from what they are to be"""
    has_secret: bool = False
    """whether the Secret was created, or found"""
    outcome: Outcome = field(default_factory=Outcome)
    """what stood in the way of children"""
    retry_at: float | None = None
    """when what stood in the way is tried again"""
    sidecar_problem: str = ""
    """why adopted pods stay without a sidecar"""
    engine_args: tuple[str, ...] | None = None
    """of adopted pods; None: not read yet"""
    signals: Mapping[str, Signals] = field(default_factory=dict)
    """of engines whose metrics could be read in the last round"""
    answers: Mapping[str, RouterAnswer] = field(default_factory=dict)
    """of routers in the last round"""
    fleet: Fleet | None = None
    """the rebalancer's state; None: begins with the published weights"""
    decision: Decision | None = None
    demand: Demand = field(default_factory=Demand)
    """what the scale signal goes by"""
    changes: list[Change] = field(default_factory=list)
    """of weights, not published yet"""
    credentials: Credentials = field(default_factory=Credentials)
    credentials_due: float = float("inf")
    """when they are read again"""
    missing_secrets: tuple[str, ...] = ()
    """Secrets or keys that are named and not there, in sentences"""
    status: Document = field(default_factory=dict)
    """as written last"""
    status_hash: str = ""
    """of the configuration that it is about"""
    status_at: float | None = None
    """when; None: never by us"""


class Records:
    """All records by key."""

    def __init__(self) -> None:
        self._records: dict[Key, Record] = {}

    def get(self, key: Key) -> Record | None:
        """Return a record, if there is one."""
        return self._records.get(key)

    def of(self, key: Key, uid: str) -> Record:
        """Return the record of the resource with that uid; a fresh one where the name is used anew."""
        record = self._records.get(key)
        if record is None or record.uid != uid:
            record = self._records[key] = Record(uid)
        return record

    def drop(self, key: Key) -> None:
        """Forget a record."""
        self._records.pop(key, None)

    def distrust(self) -> None:
        """Have every reconcile apply everything anew."""
        for record in self._records.values():
            record.applied.clear()
            record.has_secret = False
            record.children_due = True
