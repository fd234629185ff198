"""Gates: whether a request may be sent to a replica now, or waits in the router. `dispatch` asks, the catalog names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.contracts import Gate
from halffull.core.entry import Entry


@dataclass(frozen=True, slots=True)
class LimitParameters:
    """Parameters of gate `limit`."""

    max_in_flight: Annotated[int, Bounds(ge=1)] | None = None
    """requests in flight per replica; absent: twice the sequences that its engine runs at once"""


class NoGate(Gate):
    """Gate `none`: every request is sent at once; the engines' queues hold what waits."""

    def open(self, replica: Replica) -> bool:
        """Return True."""
        return True

    def limit(self, replica: Replica) -> int | None:
        """Return None."""
        return None


class LimitGate(Gate):
    """Gate `limit`: at most `max_in_flight` requests per replica; the router's queue holds the rest."""

    def __init__(self, parameters: LimitParameters) -> None:
        self._limit = parameters.max_in_flight

    def open(self, replica: Replica) -> bool:
        """Whether the replica has fewer requests in flight than its limit."""
        return replica.in_flight < (self._limit or 2 * replica.max_sequences)

    def limit(self, replica: Replica) -> int | None:
        """Return the limit that holds for this replica."""
        return self._limit or 2 * replica.max_sequences


_ENTRIES = (
    Entry[Gate]("none", "every request is sent at once", NoGate),
    Entry[Gate]("limit", "a limit on requests in flight per replica", LimitGate, LimitParameters),
)

GATES: Mapping[str, Entry[Gate]] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
