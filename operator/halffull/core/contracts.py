"""What a policy, an ordering and a gate are; what randomness looks like to them.

The router and the simulator call the same objects with the same books. A decision is synchronous, does no I/O and
changes nothing but the policy's own state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from halffull.core.books import Replica
from halffull.core.values import Request


class Rng(Protocol):
    """The part of `random.Random` that decisions use; seeded by the host."""

    def random(self) -> float:
        """Return a number in [0, 1)."""

    def randrange(self, stop: int, /) -> int:
        """Return an integer in [0, stop)."""


@dataclass(slots=True)
class Context:
    """What a decision may know besides the books."""

    now: float
    """seconds of the host's monotonic clock"""
    rng: Rng


class Policy(Protocol):
    """Picks the replica that runs one request."""

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return one of `candidates` (never empty: all are ready and their gate is open)."""

    def added(self, replica: Replica) -> None:
        """A replica became a candidate."""

    def changed(self, replica: Replica) -> None:
        """The books of a candidate changed."""

    def removed(self, replica: Replica) -> None:
        """A replica is no longer a candidate."""


class Ordering(Protocol):
    """Orders the queue: the smallest key is offered first."""

    def key(self, request: Request, context: Context) -> float:
        """Return the request's place, fixed at arrival; ties are broken by arrival."""


class Gate(Protocol):
    """Says whether a replica may be sent requests now, or whether they wait in the router (late binding)."""

    def open(self, replica: Replica) -> bool:
        """Whether the replica can take a request at all; asked when its books change."""

    def limit(self, replica: Replica) -> int | None:
        """Requests in flight that it lets in; None: no limit. Shown to people."""
