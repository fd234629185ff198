"""The dispatcher as a state machine: whatever order things happen in, no request is lost and the books stay exact."""

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.core.errors import Failure, Reason
from halffull.core.exchange import Exchange, Phase
from halffull.core.faults import Blame, Fault
from halffull.core.gate import GATES, LimitParameters
from halffull.core.health import Verdict
from halffull.core.limits import Limits
from halffull.core.redispatch import MOST
from halffull.core.values import Request, State
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES

BUSY = Failure(Reason.ENGINE_BUSY, "busy")
COSTING = ("predicted-ttft", "halffull", "adaptive")
"""policies that may let a request wait for a better replica than one that is ready"""


class Scheduling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.serial = 0
        self.limits = Limits(queue_requests=8, queue_timeout_s=5.0, no_replica_s=2.0, attempts=3)
        self.policy = "sal"
        self.dispatcher = Dispatcher(
            POLICIES["sal"].make(),
            ORDERINGS["fcfs"].make(),
            GATES["limit"].make(LimitParameters(2)),
            random.Random(1),
            self.limits,
        )
        self.exchanges: list[Exchange] = []
        self.ended: set[Exchange] = set()
        self.join(0)

    def carry_out(self, given: list[Exchange]) -> None:
        for exchange in given:
            assert exchange.phase in (Phase.CONNECTING, Phase.FAILED)
            assert (exchange.failure is not None) == (exchange.phase is Phase.FAILED)

    def pick(self, data: Any, *phases: Phase) -> Exchange | None:
        chosen = [e for e in self.exchanges if e.phase in phases]
        return data.draw(st.sampled_from(chosen)) if chosen else None

    @rule(
        tokens=st.integers(1, 5000),
        stream=st.booleans(),
        resendable=st.booleans(),
        priority=st.integers(-1, 1),
        caller=st.sampled_from(["", "a", "b"]),
    )
    def arrive(self, tokens: int, stream: bool, resendable: bool, priority: int, caller: str) -> None:
        self.serial += 1
        request = Request(
            str(self.serial),
            self.now,
            tokens,
            stream=stream,
            body_bytes=tokens,
            resendable=resendable,
            priority=priority,
            caller=caller,
        )
        exchange = self.dispatcher.arrive(request, self.now)
        self.exchanges.append(exchange)
        assert exchange.phase in (Phase.CONNECTING, Phase.QUEUED, Phase.FAILED)

    @rule(data=st.data())
    def send(self, data: Any) -> None:
        """On the wire; again where the engine closed the connection just as it was used."""
        if exchange := self.pick(data, Phase.CONNECTING, Phase.WAITING):
            self.dispatcher.sent(exchange, self.now)

    @rule(data=st.data())
    def start(self, data: Any) -> None:
        if exchange := self.pick(data, Phase.WAITING):
            self.dispatcher.started(exchange, self.now)
            self.dispatcher.progressed(exchange, 1)
            self.carry_out(self.dispatcher.release(self.now))

    @rule(data=st.data(), tokens=st.integers(0, 50))
    def progress(self, data: Any, tokens: int) -> None:
        if exchange := self.pick(data, Phase.STREAMING):
            self.dispatcher.progressed(exchange, tokens)

    @rule(data=st.data(), held=st.booleans())
    def hold_back(self, data: Any, held: bool) -> None:
        """Its client does not read, or does again."""
        if exchange := self.pick(data, Phase.QUEUED, Phase.WAITING, Phase.STREAMING):
            exchange.hold_back(held=held)

    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        if exchange := self.pick(data, Phase.STREAMING):
            self.carry_out(self.dispatcher.finished(exchange, self.now))
            assert exchange.phase is Phase.DONE

    @rule(data=st.data(), fault=st.sampled_from(Fault))
    def refuse(self, data: Any, fault: Fault) -> None:
        """It fails before its answer starts, or a stream goes on elsewhere."""
        if exchange := self.pick(data, Phase.CONNECTING, Phase.WAITING, Phase.STREAMING):
            attempts, moves = exchange.attempts, exchange.moves
            given = self.dispatcher.not_started(exchange, BUSY, fault, self.now)
            self.carry_out(given)
            if attempts - moves >= self.limits.attempts or not exchange.request.resendable:
                assert exchange.phase is Phase.FAILED
            elif fault.treatment.blame is not Blame.BUSY:
                assert exchange.phase is not Phase.FAILED

    @rule(data=st.data(), fault=st.none() | st.sampled_from(Fault))
    def break_off(self, data: Any, fault: Fault | None) -> None:
        if exchange := self.pick(data, Phase.QUEUED, Phase.CONNECTING, Phase.WAITING, Phase.STREAMING):
            self.carry_out(self.dispatcher.broken(exchange, BUSY, self.now, fault))
            assert exchange.phase is Phase.FAILED

    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        if exchange := self.pick(data, Phase.QUEUED, Phase.CONNECTING, Phase.WAITING, Phase.STREAMING):
            self.carry_out(self.dispatcher.cancel(exchange, self.now))
            assert exchange.phase is Phase.DONE

    @rule(seconds=st.floats(0.01, 3.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.dispatcher.tick(self.now))
        self.dispatcher.transitions.clear()

    @precondition(lambda self: self.dispatcher.books.replicas)
    @rule(data=st.data())
    def hear(self, data: Any) -> None:
        data.draw(st.sampled_from(list(self.dispatcher.books.replicas.values()))).health.heard = True

    @precondition(lambda self: self.unwell())
    @rule(data=st.data(), alive=st.booleans())
    def look(self, data: Any, alive: bool) -> None:
        replica = data.draw(st.sampled_from(self.unwell()))
        self.dispatcher.judged(replica, self.now, alive=alive, why="looked")
        assert replica.health.verdict in ({Verdict.WELL, Verdict.TRIAL} if alive else {Verdict.OUT})
        self.carry_out(self.dispatcher.release(self.now))

    def unwell(self) -> list[Replica]:
        bad = {Verdict.SUSPECT, Verdict.OUT}
        return [r for r in self.dispatcher.books.replicas.values() if r.health.verdict in bad]

    @rule(number=st.integers(0, 3))
    def join(self, number: int) -> None:
        name = f"r{number}"
        if name not in self.dispatcher.books.replicas:
            self.dispatcher.add(Replica(name, "127.0.0.1", 8000), self.now)
            self.carry_out(self.dispatcher.release(self.now))

    @precondition(lambda self: self.dispatcher.books.replicas)
    @rule(data=st.data(), state=st.sampled_from([*State, None]))
    def change_fleet(self, data: Any, state: State | None) -> None:
        replica = data.draw(st.sampled_from(list(self.dispatcher.books.replicas.values())))
        if state is None:
            self.dispatcher.remove(replica)
        else:
            replica.state = state
            self.dispatcher.refresh(replica, self.now)
        self.carry_out(self.dispatcher.release(self.now))

    @precondition(lambda self: self.dispatcher.books.replicas)
    @rule(data=st.data(), suspended=st.booleans())
    def suspend(self, data: Any, suspended: bool) -> None:
        replica = data.draw(st.sampled_from(list(self.dispatcher.books.replicas.values())))
        replica.suspended = suspended
        self.dispatcher.refresh(replica, self.now)
        self.carry_out(self.dispatcher.release(self.now))

    @rule(policy=st.sampled_from(list(POLICIES)), gate=st.sampled_from(list(GATES)))
    def swap(self, policy: str, gate: str) -> None:
        waiting = len(self.dispatcher.queue)
        self.policy = policy
        self.dispatcher.configure(
            POLICIES[policy].make(), ORDERINGS["fcfs"].make(), GATES[gate].make(), self.limits, self.now
        )
        assert len(self.dispatcher.queue) == waiting
        self.carry_out(self.dispatcher.release(self.now))

    @invariant()
    def books_are_exact(self) -> None:
        for replica in self.dispatcher.books.replicas.values():
            held = [e for e in self.exchanges if e.replica is replica]
            begun = [e for e in held if e.phase is Phase.STREAMING or e.presumed]
            waiting = [e for e in held if e not in begun]
            assert replica.in_flight == len(held)
            assert replica.decoding == len(begun)
            assert replica.streams == sum(e.request.stream for e in held)
            assert replica.held_back == sum(e.held_back for e in held)
            assert (
                replica.prefill_tokens == replica.waiting_prompt_tokens == sum(e.request.prompt_tokens for e in waiting)
            )
            assert replica.decode_tokens == sum(e.request.prompt_tokens + e.tokens for e in begun)
            assert all(e.request.prompt_tokens == e.asked.prompt_tokens + e.before for e in held)
            assert replica.health.tried is None or replica.health.tried in held
            assert (replica.first_work > 0) == any(e.phase is Phase.WAITING for e in waiting)

    @invariant()
    def candidates_are_true(self) -> None:
        dispatcher = self.dispatcher
        for place, replica in enumerate(dispatcher.candidates):
            assert replica.place == place
            assert replica.shown is State.READY
            assert replica.health.verdict in {Verdict.WELL, Verdict.TRIAL}
            assert replica.health.verdict is Verdict.WELL or replica.health.tried is None
            assert dispatcher.books.replicas[replica.name] is replica
            assert dispatcher.gate.open(replica)

    @invariant()
    def nobody_comes_back(self) -> None:
        assert all(exchange.phase.ended for exchange in self.ended)
        self.ended |= {exchange for exchange in self.exchanges if exchange.phase.ended}

    @invariant()
    def nobody_is_lost(self) -> None:
        queued = [e for e in self.exchanges if e.phase is Phase.QUEUED]
        assert len(self.dispatcher.queue) == len(queued)
        assert self.dispatcher.queue.bytes == sum(e.request.body_bytes for e in queued)
        candidates, admits = self.dispatcher.candidates, self.dispatcher.gate.admits
        for exchange in queued:
            taking = [r for r in candidates if admits(r, exchange.request, self.now)]
            held_for_better = self.policy in COSTING and 0 < len(taking) < len(candidates)
            assert not taking or held_for_better, "work conservation"
        for exchange in self.exchanges:
            assert exchange.moves <= MOST
            held = exchange.phase in (Phase.CONNECTING, Phase.WAITING, Phase.STREAMING)
            assert held == (exchange.replica is not None)


Scheduling.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestScheduling = Scheduling.TestCase
