"""Who runs what, and when: moves every exchange through its phases and keeps the books, the queue and the candidates true.

Pure and synchronous. The host (router or simulator) reports what happened with the time, and gets back the exchanges that
need it now: CONNECTING ones are to be sent to their replica (and ended at the one before, if they were moved), FAILED ones to
be answered with their failure.
"""

from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from halffull.core.admission import Admission
from halffull.core.books import Books, Replica, prefill_work
from halffull.core.budget import Budget
from halffull.core.contracts import Context, Gate, Ordering, Policy, Rng
from halffull.core.errors import Failure, Reason
from halffull.core.exchange import Exchange, Phase
from halffull.core.faults import Blame, Fault
from halffull.core.health import Verdict
from halffull.core.limits import Limits
from halffull.core.peers import Peers
from halffull.core.placement import Placement
from halffull.core.queue import Queue
from halffull.core.redispatch import Redispatch
from halffull.core.values import Request, State


class Transition(NamedTuple):
    """The data path thinks otherwise of a replica; told once."""

    replica: Replica
    verdict: Verdict
    why: str


class Dispatcher:
    """The scheduler of one router."""

    def __init__(self, policy: Policy, ordering: Ordering, gate: Gate, rng: Rng, limits: Limits) -> None:
        self.books = Books()
        self.queue = Queue(ordering, fair=limits.queue_fair)
        self._placement = Placement(policy, gate)
        self._limits = limits
        self._context = Context(0.0, rng, self.books, limits.ttft_goal_s, limits.signals_s)
        self._ready_seen = 0.0
        self._budget = Budget(limits.budget_percent, limits.budget_minimum)
        self._redispatch = Redispatch()
        self._admission = Admission()
        self._presumptions: list[tuple[float, int, Exchange, int]] = []
        """when it is guessed to start, a ticket, a plain request, and for which of its attempts the guess holds"""
        self._ticket = count()
        self.peers: Peers | None = None
        """other routers, which hear of what this one does; None: it is alone"""
        self.transitions: list[Transition] = []
        """for the host to take, log and count"""

    @property
    def candidates(self) -> list[Replica]:
        """Replicas that may be sent a request now, in no order; late gates may still hold some for it."""
        return self._placement.candidates

    @property
    def gate(self) -> Gate:
        """The gate in force."""
        return self._placement.gate

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._placement.policy

    # --- what the host reports of requests

    def arrive(self, request: Request, now: float, host: object = None) -> Exchange:
        """Take a request in; the exchange comes back CONNECTING, QUEUED or FAILED."""
        exchange = Exchange(request, host)
        self._budget.arrived(now)
        self._redispatch.arrived(now)
        if len(self.queue) < self._placement.window and self._assign(exchange, now):
            return exchange
        failure = self._admission.refusal(request, self.queue, self._limits, self.at(now))
        if failure is not None:
            self._fail(exchange, failure)
        else:
            self._enqueue(exchange, now)
        return exchange

    def sent(self, exchange: Exchange, now: float) -> None:
        """The request is on the wire; once more where its connection broke. If its first token cannot be seen, guess when it comes."""
        exchange.phase = Phase.WAITING
        exchange.sent_at = now
        replica = exchange.replica
        if replica is None or exchange.presumed:
            return
        self._redispatch.sent(exchange, replica)
        if not exchange.request.stream:
            guess = now + replica.work_left(now) / replica.prefill_rate
            heappush(self._presumptions, (guess, next(self._ticket), exchange, exchange.attempts))

    def started(self, exchange: Exchange, now: float) -> None:
        """The first generated text came, or of a stream that goes on elsewhere the next."""
        replica, tokens, cached = exchange.replica, exchange.request.prompt_tokens, exchange.cached_tokens
        if replica is None or exchange.phase is not Phase.WAITING:
            return
        exchange.phase = Phase.STREAMING
        self._redispatch.left(exchange, replica)
        if replica.health.succeeded():
            self._note(replica, "its trial went well")
            self.refresh(replica, now)
        if not exchange.presumed:
            if exchange.request.stream:
                self.books.learn(replica, prefill_work(tokens, cached), now)
                if exchange.started_at is None:
                    self.books.first_token(exchange.asked, now)
            replica.started(tokens, now, cached)
            self._changed(replica)
        if exchange.started_at is None:
            exchange.started_at = now

    def progressed(self, exchange: Exchange, tokens: int) -> None:
        """More tokens of the answer came."""
        if exchange.replica is not None:
            exchange.tokens += tokens
            exchange.replica.decode_tokens += tokens

    def finished(self, exchange: Exchange, now: float) -> list[Exchange]:
        """The answer is complete: its replica is free of it."""
        if exchange.phase is Phase.STREAMING:
            self.books.complete(exchange.asked, exchange.generated)
        return self._done(exchange, now)

    def broken(self, exchange: Exchange, failure: Failure, now: float, fault: Fault | None = None) -> list[Exchange]:
        """The exchange, which may wait, ends with a failure and is not tried again; `fault`: it is the replica's."""
        replica = exchange.replica
        self.queue.leave(exchange)
        self._release(exchange, now)
        if replica is not None and fault is not None:
            self._blame(replica, fault, failure.message, now)
        self._fail(exchange, failure)
        return self.release(now)

    def not_started(
        self, exchange: Exchange, failure: Failure, fault: Fault, now: float, pause_s: float = 0.0
    ) -> list[Exchange]:
        """Its replica failed it before an answer started, or a stream is to go on: try elsewhere, or fail with `failure`.

        `pause_s`: for how long the engine wants nothing new.
        """
        replica, generated = exchange.replica, exchange.tokens
        self._release(exchange, now)
        if generated:
            exchange.goes_on(generated)
        if replica is not None:
            self._blame(replica, fault, failure.message, now, pause_s)
            exchange.avoid |= {replica.name}
        spent = fault.treatment.blame is Blame.BUSY and not self._budget.take(now)
        if spent or exchange.attempts - exchange.moves >= self._limits.attempts or not exchange.request.resendable:
            self._fail(exchange, failure)
            return [exchange, *self.release(now)]
        exchange.phase = Phase.QUEUED
        self._enqueue(exchange, now)
        return self.release(now)

    # --- time and fleet

    def tick(self, now: float) -> list[Exchange]:
        """Do what time brings; to be called about every 50 ms."""
        if self._any_ready():
            self._ready_seen = now
        while self._presumptions and self._presumptions[0][0] <= now:
            _, _, exchange, attempt = heappop(self._presumptions)
            if exchange.attempts == attempt:
                self._presume(exchange, now)
        for replica in self.books.replicas.values():
            prefill_s = replica.prefill_work / replica.prefill_rate
            if replica.health.listen(now, prefill_s, streams=replica.streams > replica.held_back) is not None:
                self._note(
                    replica, "it fell silent" if replica.health.verdict is Verdict.SUSPECT else "it was heard again"
                )
                self.refresh(replica, now)
            elif replica.place < 0:
                self.refresh(replica, now)
        self.books.look(now)
        self._placement.stir()
        given = [] if self.peers is not None and self.peers.yields(now) else self._give(now)
        return [*given, *self._expire(now), *self._move(now)]

    def release(self, now: float) -> list[Exchange]:
        """Give queued requests to candidates, in order, while there are both, and no peer's request waits longer."""
        if self.peers is not None and len(self.queue) and not self.peers.turn(self.queue.oldest, now):
            return []
        return self._give(now)

    def _give(self, now: float) -> list[Exchange]:
        given: list[Exchange] = []

        def take(exchange: Exchange) -> bool:
            if not self._assign(exchange, now):
                return False
            self._admission.released(now)
            given.append(exchange)
            return True

        if self.candidates and len(self.queue):
            self.queue.offer(take, self._placement.window, self.at(now))
        self._placement.settle()
        return given

    def judged(self, replica: Replica, now: float, *, alive: bool, why: str) -> None:
        """The host looked at a suspected or taken-out replica.

        A dead one stays out, or goes out: the host then reports its exchanges as not started or broken.
        """
        health = replica.health
        if alive and health.verdict is Verdict.SUSPECT:
            health.cleared(now)
        elif alive:
            health.readmit(now)
        else:
            health.take_out(now)
        self._note(replica, why)
        self.refresh(replica, now)

    def add(self, replica: Replica, now: float) -> None:
        """A replica joined the fleet."""
        self.books.add(replica)
        if self.peers is not None:
            self.peers.joined(replica, now)
        self.refresh(replica, now)

    def remove(self, replica: Replica) -> None:
        """A replica left the fleet; exchanges that it holds go on until the host reports their end."""
        self.books.remove(replica)
        if self.peers is not None:
            self.peers.changed(replica)
        self._placement.withdraw(replica)

    def refresh(self, replica: Replica, now: float) -> None:
        """The replica's state, limits or books changed: is it a candidate?"""
        able = (
            replica.state is State.READY
            and not replica.suspended
            and replica.health.takes(now)
            and self._placement.open(replica)
            and self.books.replicas.get(replica.name) is replica
        )
        self._placement.admit(replica, able=able)

    def heard(self, replicas: Iterable[Replica], now: float) -> list[Exchange]:
        """Peers told of these replicas."""
        for replica in replicas:
            self._placement.changed(replica)
            self.refresh(replica, now)
        return self.release(now)

    def configure(self, policy: Policy, ordering: Ordering, gate: Gate, limits: Limits, now: float) -> None:
        """Swap the scheduler between two requests; nobody leaves the queue, nothing in flight notices."""
        for replica in list(self.candidates):
            self._placement.withdraw(replica)
        self._placement = Placement(policy, gate)
        self._limits = limits
        self._context.ttft_goal_s, self._context.signals_s = limits.ttft_goal_s, limits.signals_s
        self._budget = Budget(limits.budget_percent, limits.budget_minimum)
        self.queue.reorder(ordering, self.at(now), fair=limits.queue_fair)
        for replica in self.books.replicas.values():
            self.refresh(replica, now)

    def cancel(self, exchange: Exchange, now: float) -> list[Exchange]:
        """The client went away."""
        if exchange.phase.ended:
            return []
        self.queue.leave(exchange)
        return self._done(exchange, now)

    def at(self, now: float) -> Context:
        """Return what decisions may know at this moment."""
        self._context.now = now
        return self._context

    # --- inside

    def _assign(self, exchange: Exchange, now: float) -> bool:
        """Give the request to a replica; return whether there was one for it."""
        context = self.at(now)
        replica = self._placement.choose(exchange, context, spare=self.queue.behind(exchange, context))
        if replica is not None:
            self._bind(exchange, replica, now)
        return replica is not None

    def _move(self, now: float) -> list[Exchange]:
        """Take what has not started to replicas that start it earlier, or from replicas that leave."""
        moved = []
        for exchange, replica in self._redispatch.moves(self._placement, self.at(now), queued=len(self.queue) > 0):
            self._release(exchange, now)
            exchange.moves += 1
            self._bind(exchange, replica, now)
            moved.append(exchange)
        return moved

    def _bind(self, exchange: Exchange, replica: Replica, now: float) -> None:
        request, placement = exchange.request, self._placement
        exchange.replica = replica
        exchange.phase = Phase.CONNECTING
        exchange.attempts += 1
        exchange.offered = False
        exchange.cached_tokens = self.books.prefixes.matches(request).get(replica.name, 0)
        self.books.prefixes.insert(replica.name, request, replica.kv_tokens)
        replica.sent(request.prompt_tokens, now, stream=request.stream, cached_tokens=exchange.cached_tokens)
        self._changed(replica)
        if replica.health.verdict is Verdict.TRIAL:
            replica.health.tried = exchange
        if not placement.open(replica) or replica.health.verdict is not Verdict.WELL:
            placement.withdraw(replica)

    def _done(self, exchange: Exchange, now: float) -> list[Exchange]:
        self._release(exchange, now)
        exchange.phase = Phase.DONE
        return self.release(now)

    def _release(self, exchange: Exchange, now: float) -> None:
        replica = exchange.replica
        if replica is None:
            return
        tokens = exchange.request.prompt_tokens
        replica.streams -= exchange.request.stream
        exchange.hold_back(held=False)
        if exchange.phase is Phase.STREAMING or exchange.presumed:
            self.books.ended(replica, tokens + exchange.tokens, exchange.started_at, now)
        else:
            self._redispatch.left(exchange, replica)
            replica.unsent(tokens, exchange.cached_tokens)
        if replica.health.tried is exchange:
            replica.health.tried = None
        exchange.replica = None
        exchange.presumed = False
        exchange.tokens = 0
        self._changed(replica)
        if replica.place < 0:
            self.refresh(replica, now)

    def _presume(self, exchange: Exchange, now: float) -> None:
        if exchange.phase is Phase.WAITING and not exchange.presumed and exchange.replica is not None:
            exchange.presumed = True
            self._redispatch.left(exchange, exchange.replica)
            exchange.replica.started(exchange.request.prompt_tokens, now, exchange.cached_tokens)
            self._changed(exchange.replica)

    def _changed(self, replica: Replica) -> None:
        self._placement.changed(replica)
        if self.peers is not None:
            self.peers.changed(replica)

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

    def _enqueue(self, exchange: Exchange, now: float) -> None:
        if not len(self.queue):
            self._admission.began(now)
        self.queue.push(exchange, self.at(now))

    def _blame(self, replica: Replica, fault: Fault, why: str, now: float, pause_s: float = 0.0) -> None:
        health, blame = replica.health, fault.treatment.blame
        if blame is Blame.BUSY:
            health.refused(now, pause_s)
        elif blame is Blame.FAILED and health.failed(now) and self._may_take_out(replica):
            health.take_out(now)
            self._note(replica, why)
        self.refresh(replica, now)

    def _may_take_out(self, replica: Replica) -> bool:
        """At most half of the fleet is out, none twice: beyond that more is lost by leaving replicas out than by trying them."""
        out = sum(r.health.verdict is Verdict.OUT for r in self.books.replicas.values() if r is not replica)
        return replica.health.verdict is not Verdict.OUT and 2 * (out + 1) <= len(self.books.replicas)

    def _note(self, replica: Replica, why: str) -> None:
        self.transitions.append(Transition(replica, replica.health.verdict, why))

    def _fail(self, exchange: Exchange, failure: Failure) -> None:
        exchange.phase = Phase.FAILED
        exchange.failure = failure
