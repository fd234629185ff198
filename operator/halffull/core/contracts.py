"""What a policy, an ordering and a gate are; what randomness looks like to them.

The router and the simulator call the same objects with the same books. A decision is synchronous, does no I/O and
changes nothing but the policy's own state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from halffull.core.books import Books, Replica, prefill_work
from halffull.core.values import Request, Signals


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
    books: Books = field(default_factory=Books)
    """of all replicas, also those that are no candidates"""
    ttft_goal_s: float | None = None
    """time to the first token that users are promised"""
    signals_s: float = float("inf")
    """age from which signals are stale; infinite: the last known ones are good"""
    waiting_since: float | None = None
    """when the one that waits longest in the router's queue began to, as the queue tells orderings; None: none waits"""

    def prefill_s(self, request: Request) -> float:
        """Seconds that an average replica needs for the prompt, with the longest cached prefix that there is."""
        cached = max(self.books.prefixes.matches(request).values(), default=0)
        return prefill_work(request.prompt_tokens, cached) / self.books.fleet_rate

    def signals(self, replica: Replica) -> Signals | None:
        """What the replica last said of itself, unless that is stale or not to be believed."""
        stale = replica.distrusted or self.now - replica.signals_at > self.signals_s
        return None if stale else replica.signals


class Policy(Protocol):
    """Picks the replica that runs one request."""

    reads_prefixes: bool = False
    """whether it needs `Request.blocks`; the host computes none otherwise"""

    max_moves: int = 0
    """times that a request which waits in an engine may be moved to a replica that would start it earlier; see `redispatch`"""

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return one of `candidates` (never empty: all are ready and their gate is open)."""

    def cost(self, request: Request, replica: Replica, context: Context) -> float | None:
        """Seconds that the request is taken to wait there, for gates that hold requests for a better replica.

        None: the policy knows no such figure.
        """
        return None

    def figures(self) -> Mapping[str, float]:
        """Return what it has learned, for people: `/status` shows it."""
        return {}

    def added(self, replica: Replica) -> None:
        """A replica became a candidate."""
        return

    def changed(self, replica: Replica) -> None:
        """The books of a candidate changed."""
        return

    def removed(self, replica: Replica) -> None:
        """A replica is no longer a candidate."""
        return


class Ordering(Protocol):
    """Orders the queue: the smallest key is offered first."""

    def key(self, request: Request, context: Context) -> float:
        """Return the request's place; ties are broken by arrival.

        It is asked for when the request begins to wait and again when its turn comes: a key may grow meanwhile.
        """

    def mode(self, context: Context) -> int:
        """Return which of its orders is in force, where it has several.

        Keys of different modes are not compared: when the mode changes, every key is asked for anew.
        """
        return 0

    def behind(self, request: Request, context: Context) -> bool:
        """Whether the request is behind all that still come, and so goes only where it does not make the next one wait.

        The queue keeps such requests in a line of their own, in which callers take turns as in the other. It also asks for a
        moment to come, when the turn of a request would be.
        """
        return False

    def joined(self, request: Request) -> None:
        """A request begins to wait in the queue; for orderings in which who else waits matters."""
        return

    def left(self, request: Request) -> None:
        """A request waits no longer."""
        return


class Gate(Protocol):
    """Says whether a replica may be sent requests now, or whether they wait in the router."""

    late: bool = False
    """late binding: whether a request is placed depends on the request too, and it may be held for a better replica"""

    def open(self, replica: Replica) -> bool:
        """Whether the replica can take a request at all; asked when its books change."""

    def admits(self, replica: Replica, request: Request, now: float) -> bool:
        """Whether an open replica can take this request now; asked of late gates alone."""
        return True

    def soon(self, replica: Replica, request: Request) -> bool:
        """Whether a replica that does not admit the request lacks nothing but time; asked of late gates alone."""
        return False

    def limit(self, replica: Replica) -> int | None:
        """Requests in flight that it lets in; None: no limit. Shown to people."""
