"""Where a request goes now, if anywhere: the candidates, the gate that closes them, the policy that picks. Used by `dispatch`.

With an early gate a replica is a candidate while its gate is open, and every request goes to one of them. With a late
gate (`Gate.late`) closed replicas stay candidates, so that a request can be held for a better one. A held request is looked
at again only where a replica changed since, and at each tick.
"""

from collections.abc import Sequence
from math import inf

from halffull.core import adapters
from halffull.core.books import Replica
from halffull.core.contracts import Context, Gate, Policy
from halffull.core.exchange import Exchange
from halffull.core.values import Request

WINDOW = 16
"""requests of the order that are offered per event; a simulated fleet gains nothing measurable from more"""
HOLD_FACTOR = 1.05
HOLD_SECONDS = 0.02
"""a request is not held where waiting would gain less than this: about the error of the predicted times"""

SPARE = 0.75
"""part of a replica's KV cache, and of its places in a batch, that those may fill which are behind all that still come; the rest
is for these. Where memory binds, simulated p99 TTFT from 5 s after an overload is 1.3 times that before it, 6 with 1.0"""


class Placement:
    """The replicas that may be sent a request now, and who picks among them."""

    def __init__(self, policy: Policy, gate: Gate) -> None:
        self.candidates: list[Replica] = []
        """in no order; each knows its place"""
        self.policy = policy
        self.gate = gate
        self._late = gate.late
        self._stirred: dict[Replica, None] = {}
        """with a late gate: candidates that changed since what waits was offered to all"""
        self._adapters = False
        """some request waits, or waited, for the few replicas that serve its adapter"""

    @property
    def window(self) -> int:
        """How many requests may be passed over in one event."""
        return WINDOW if self.gate.late or self._adapters else 1

    def open(self, replica: Replica) -> bool:
        """Whether the gate leaves it among the candidates."""
        return self.gate.open(replica)

    def admit(self, replica: Replica, *, able: bool) -> None:
        """It is, or is not, a candidate from now on."""
        if able and replica.place < 0:
            replica.place = len(self.candidates)
            self.candidates.append(replica)
            self.policy.added(replica)
            self._stirred[replica] = None
        elif able:
            self._stirred[replica] = None
        elif replica.place >= 0:
            self.withdraw(replica)

    def withdraw(self, replica: Replica) -> None:
        """It is no candidate any more; nothing if it is none."""
        place = replica.place
        if place < 0:
            return
        last = self.candidates.pop()
        if last is not replica:
            self.candidates[place] = last
            last.place = place
        replica.place = -1
        self._stirred.pop(replica, None)
        self.policy.removed(replica)

    def changed(self, replica: Replica) -> None:
        """Its books changed."""
        if replica.place >= 0:
            self.policy.changed(replica)
            if self._late:
                self._stirred[replica] = None

    def stir(self) -> None:
        """Time has passed: look at every candidate again."""
        if self._late:
            self._stirred = dict.fromkeys(self.candidates)

    def settle(self) -> None:
        """What waits has been offered to all that changed."""
        if self._stirred:
            self._stirred.clear()

    def choose(self, exchange: Exchange, context: Context, *, spare: bool = False) -> Replica | None:
        """Return the replica for a request, or None: it waits.

        `spare`: with a late gate, it goes only where no prompt waits or is computed, and memory and places are left.
        """
        candidates = self._allowed(exchange)
        if spare and self._late:
            candidates = [replica for replica in candidates if _spares(replica, exchange.request)]
        if exchange.request.adapter:
            return self._for_adapter(exchange, candidates, context)
        return self._choose(exchange, candidates, context)

    def _for_adapter(self, exchange: Exchange, candidates: Sequence[Replica], context: Context) -> Replica | None:
        """Choose among the replicas that serve the request's adapter, of these rather those that hold it."""
        adapter = exchange.request.adapter
        able = adapters.able(adapter, candidates, context.books.replicas.values())
        self._adapters = self._adapters or not able
        near = adapters.nearest(adapter, able) if able else able
        replica = self._choose(exchange, near, context)
        if replica is None and len(near) < len(able):
            replica = self._choose(exchange, able, context)
        if replica is not None:
            adapters.take(adapter, replica)
        return replica

    def _choose(self, exchange: Exchange, candidates: Sequence[Replica], context: Context) -> Replica | None:
        request = exchange.request
        if not candidates:
            return None
        if not self.gate.late:
            return self.policy.choose(request, candidates, context)
        if exchange.offered and not self._admitted(request, [*self._stirred], context):
            return None
        exchange.offered = True
        ready = self._admitted(request, candidates, context)
        if not ready:
            return None
        best = self.policy.choose(request, ready, context)
        return (
            None if len(ready) < len(candidates) and self._worth_holding(request, best, candidates, context) else best
        )

    def others(self, exchange: Exchange, context: Context) -> list[Replica]:
        """Return the replicas that could take a request from its own now."""
        source, avoid = exchange.replica, exchange.avoid
        others: Sequence[Replica] = [r for r in self.candidates if r is not source and r.name not in avoid]
        if exchange.request.adapter:
            others = adapters.able(exchange.request.adapter, others, context.books.replicas.values())
        return self._admitted(exchange.request, others, context) if self.gate.late else [*others]

    def _allowed(self, exchange: Exchange) -> Sequence[Replica]:
        candidates = self.candidates
        if exchange.avoid:
            return [r for r in candidates if r.name not in exchange.avoid] or candidates
        if exchange.request.pinned is not None:
            return [r for r in candidates if r.name == exchange.request.pinned] or candidates
        return candidates

    def _admitted(self, request: Request, replicas: Sequence[Replica], context: Context) -> list[Replica]:
        admits, now = self.gate.admits, context.now
        return [replica for replica in replicas if admits(replica, request, now)]

    def _worth_holding(self, request: Request, best: Replica, candidates: Sequence[Replica], context: Context) -> bool:
        """Whether a replica that is not ready is so much better that the request waits for it."""
        cost = self.policy.cost(request, best, context)
        if cost is None:
            return False
        for replica in candidates:
            if self.gate.soon(replica, request):
                other = self.policy.cost(request, replica, context)
                if other is not None and cost > HOLD_FACTOR * other + HOLD_SECONDS:
                    return True
        return False


def _spares(replica: Replica, request: Request) -> bool:
    """Whether the next request finds room there beside this one."""
    if replica.waiting_prompt_tokens:
        return False
    if not replica.in_flight:
        return True
    held = replica.decode_tokens + request.prompt_tokens
    return replica.in_flight < SPARE * replica.max_sequences and held <= SPARE * (replica.kv_tokens or inf)
