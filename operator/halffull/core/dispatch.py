"""Who runs what, and when: moves every exchange through its phases and keeps the books, the queue and the candidates true.

Pure and synchronous. The host (router or simulator) reports what happened with the time, and gets back the exchanges that
need it now: CONNECTING ones are to be sent to their replica, FAILED ones to be answered with their failure.
"""

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import ceil

from halffull.core.books import Books, Replica
from halffull.core.contracts import Context, Gate, Ordering, Policy, Rng
from halffull.core.errors import Failure, Reason
from halffull.core.estimators import Rate
from halffull.core.exchange import Exchange, Phase
from halffull.core.queue import Queue
from halffull.core.values import Request, State

BACKOFF_FIRST_S = 0.25
BACKOFF_LAST_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the dispatcher lets happen; from `scheduling.queue` and `router.retries`."""

    queue_requests: int = 1024
    queue_bytes: int = 256 << 20
    queue_timeout_s: float = 30.0
    no_replica_s: float = 10.0
    """how long a request waits while no replica is ready"""
    attempts: int = 4
    """replicas that are tried for one request"""


class Dispatcher:
    """The scheduler of one router."""

    def __init__(self, policy: Policy, ordering: Ordering, gate: Gate, rng: Rng, limits: Limits) -> None:
        self.books = Books()
        self.queue = Queue(ordering)
        self.candidates: list[Replica] = []
        """replicas that may be sent a request now, in no order"""
        self._policy = policy
        self.gate = gate
        self._limits = limits
        self._context = Context(0.0, rng)
        self._ready_seen = 0.0
        self._released = Rate(10.0)
        self._presumptions: list[tuple[float, int, Exchange]] = []
        self._ticket = count()

    # --- what the host reports of requests

    def arrive(self, request: Request, now: float, host: object = None) -> Exchange:
        """Take a request in; the exchange comes back CONNECTING, QUEUED or FAILED."""
        exchange = Exchange(request, host)
        queue, limits = self.queue, self._limits
        if self.candidates and not len(queue):
            self._assign(exchange, now)
        elif len(queue) >= limits.queue_requests or queue.bytes + request.body_bytes > limits.queue_bytes:
            self._fail(exchange, Failure(Reason.QUEUE_FULL, "The queue is full.", retry_after_s=self._drain_s()))
        else:
            queue.push(exchange, self._at(now))
        return exchange

    def sent(self, exchange: Exchange, now: float) -> None:
        """The request is on the wire. Where its first token cannot be seen, guess when it comes."""
        exchange.phase = Phase.WAITING
        exchange.sent_at = now
        replica = exchange.replica
        if replica is not None and not exchange.request.stream:
            guess = now + replica.prefill_tokens / replica.prefill_rate
            heappush(self._presumptions, (guess, next(self._ticket), exchange))

    def started(self, exchange: Exchange, now: float) -> None:
        """The first generated text came."""
        replica, tokens = exchange.replica, exchange.request.prompt_tokens
        if replica is None or exchange.phase is not Phase.WAITING:
            return
        exchange.phase = Phase.STREAMING
        exchange.started_at = now
        replica.backoff_s = 0.0
        if not exchange.presumed:
            if exchange.request.stream:
                self.books.learn(replica, tokens, now)
            replica.started(tokens, now)
            self._changed(replica)

    def progressed(self, exchange: Exchange, tokens: int) -> None:
        """More tokens of the answer came."""
        if exchange.replica is not None:
            exchange.tokens += tokens
            exchange.replica.decode_tokens += tokens

    def finished(self, exchange: Exchange, now: float) -> list[Exchange]:
        """The answer is complete, or the client is gone: its replica is free of it."""
        self._release(exchange, now)
        exchange.phase = Phase.DONE
        return self.release(now)

    def broken(self, exchange: Exchange, failure: Failure, now: float) -> list[Exchange]:
        """The exchange ends with a failure and is not tried again."""
        self._release(exchange, now)
        self._fail(exchange, failure)
        return self.release(now)

    def not_started(self, exchange: Exchange, failure: Failure, now: float, closed_s: float = 0.0) -> list[Exchange]:
        """Its replica refused it or is out of reach, and no answer has started: try elsewhere, or fail with `failure`.

        The replica takes nothing new for `closed_s` seconds, or 250 ms doubling to 10 s, whichever is longer.
        """
        replica = exchange.replica
        self._release(exchange, now)
        if replica is not None:
            replica.backoff_s = min(max(2 * replica.backoff_s, BACKOFF_FIRST_S), BACKOFF_LAST_S)
            replica.closed_until = now + max(closed_s, replica.backoff_s)
            self.refresh(replica, now)
            exchange.avoid |= {replica.name}
        if exchange.attempts >= self._limits.attempts or not exchange.request.resendable:
            self._fail(exchange, failure)
            return [exchange, *self.release(now)]
        exchange.phase = Phase.QUEUED
        self.queue.push(exchange, self._at(now))
        return self.release(now)

    # --- time and fleet

    def tick(self, now: float) -> list[Exchange]:
        """Do what time brings; to be called about every 50 ms."""
        if self._any_ready():
            self._ready_seen = now
        while self._presumptions and self._presumptions[0][0] <= now:
            self._presume(heappop(self._presumptions)[2], now)
        for replica in self.books.replicas.values():
            if replica.place < 0 and replica.closed_until <= now:
                self.refresh(replica, now)
        return [*self.release(now), *self._expire(now)]

    def release(self, now: float) -> list[Exchange]:
        """Give queued requests to candidates, in order, while there are both."""
        given: list[Exchange] = []
        while self.candidates and (exchange := self.queue.first()) is not None:
            self.queue.leave(exchange)
            self._released.add(1.0, 0.0, now)
            self._assign(exchange, now)
            given.append(exchange)
        return given

    def add(self, replica: Replica, now: float) -> None:
        """A replica joined the fleet."""
        self.books.add(replica)
        self.refresh(replica, now)

    def remove(self, replica: Replica) -> None:
        """A replica left the fleet; exchanges that it holds go on until the host reports their end."""
        self.books.remove(replica)
        self._withdraw(replica)

    def refresh(self, replica: Replica, now: float) -> None:
        """The replica's state, limits or books changed: is it a candidate?"""
        able = (
            replica.state is State.READY
            and not replica.suspended
            and replica.closed_until <= now
            and self.gate.open(replica)
            and self.books.replicas.get(replica.name) is replica
        )
        if able and replica.place < 0:
            replica.place = len(self.candidates)
            self.candidates.append(replica)
            self._policy.added(replica)
        elif not able and replica.place >= 0:
            self._withdraw(replica)

    def configure(self, policy: Policy, ordering: Ordering, gate: Gate, limits: Limits, now: float) -> None:
        """Swap the scheduler between two requests; nobody leaves the queue, nothing in flight notices."""
        for replica in list(self.candidates):
            self._withdraw(replica)
        self._policy, self.gate, self._limits = policy, gate, limits
        self.queue.reorder(ordering, self._at(now))
        for replica in self.books.replicas.values():
            self.refresh(replica, now)

    def cancel(self, exchange: Exchange, now: float) -> list[Exchange]:
        """The client went away."""
        if exchange.phase.ended:
            return []
        self.queue.leave(exchange)
        return self.finished(exchange, now)

    # --- inside

    def _at(self, now: float) -> Context:
        self._context.now = now
        return self._context

    def _assign(self, exchange: Exchange, now: float) -> None:
        request, candidates = exchange.request, self.candidates
        if exchange.avoid:
            candidates = [r for r in candidates if r.name not in exchange.avoid] or candidates
        elif request.pinned is not None:
            candidates = [r for r in candidates if r.name == request.pinned] or candidates
        replica = self._policy.choose(request, candidates, self._at(now))
        exchange.replica = replica
        exchange.phase = Phase.CONNECTING
        exchange.attempts += 1
        replica.sent(request.prompt_tokens, now)
        self._changed(replica)
        if not self.gate.open(replica):
            self._withdraw(replica)

    def _release(self, exchange: Exchange, now: float) -> None:
        replica = exchange.replica
        if replica is None:
            return
        tokens = exchange.request.prompt_tokens
        if exchange.phase is Phase.STREAMING or exchange.presumed:
            replica.ended(tokens + exchange.tokens, now)
        else:
            replica.unsent(tokens)
        exchange.replica = None
        exchange.presumed = False
        exchange.tokens = 0
        self._changed(replica)
        if replica.place < 0:
            self.refresh(replica, now)

    def _presume(self, exchange: Exchange, now: float) -> None:
        if exchange.phase is Phase.WAITING and not exchange.presumed and exchange.replica is not None:
            exchange.presumed = True
            exchange.replica.started(exchange.request.prompt_tokens, now)
            self._changed(exchange.replica)

    def _expire(self, now: float) -> list[Exchange]:
        limits, expired = self._limits, []
        ready = self._any_ready()
        patience_s = limits.queue_timeout_s if ready else min(limits.no_replica_s, limits.queue_timeout_s)
        if not ready and now - self._ready_seen < patience_s:
            return []
        for exchange in self.queue.entered_before(now - patience_s):
            self.queue.leave(exchange)
            if ready:
                failure = Failure(Reason.QUEUE_TIMEOUT, f"No replica was free within {patience_s:g} s.")
            else:
                failure = Failure(Reason.NO_REPLICA, f"No replica was ready for {patience_s:g} s.", retry_after_s=5)
            self._fail(exchange, failure)
            expired.append(exchange)
        return expired

    def _any_ready(self) -> bool:
        return any(r.state is State.READY for r in self.books.replicas.values())

    def _drain_s(self) -> int:
        rate = self._released.per_second
        return min(max(ceil(len(self.queue) / rate), 1), 60) if rate > 0 else 5

    def _fail(self, exchange: Exchange, failure: Failure) -> None:
        exchange.phase = Phase.FAILED
        exchange.failure = failure

    def _changed(self, replica: Replica) -> None:
        if replica.place >= 0:
            self._policy.changed(replica)

    def _withdraw(self, replica: Replica) -> None:
        place = replica.place
        if place < 0:
            return
        last = self.candidates.pop()
        if last is not replica:
            self.candidates[place] = last
            last.place = place
        replica.place = -1
        self._policy.removed(replica)
