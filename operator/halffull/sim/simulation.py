"""Discrete events: one run of one contender on modelled replicas, with the router's own dispatcher, on a virtual clock.

Called by `measure`. Order at the end of an engine's step: the next step begins, then routers hear what the last one did, so
that what they send now waits for the step after (as with an engine that does not wait for its clients).
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any

from halffull.api.scenario import Contender, Outage, Slowdown
from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.core.errors import Failure
from halffull.core.exchange import Exchange, Phase
from halffull.core.faults import Fault
from halffull.core.health import Verdict
from halffull.core.values import Request, State
from halffull.sim.demand import Demand
from halffull.sim.engine_model import EngineSequence, Outcome
from halffull.sim.engine_model import Phase as SequencePhase
from halffull.sim.fleet import true_rate, virtual_engines
from halffull.sim.oracle import TrueLengths
from halffull.sim.others import Others
from halffull.sim.rebalancing import Rebalancing
from halffull.sim.scheduler import dispatcher_of
from halffull.sim.setting import Setting
from halffull.sim.sharing import Sharing
from halffull.sim.trace import BLOCK_TOKENS
from halffull.sim.virtual_engine import VirtualEngine

TICK_S = 0.05
"""the router ticks so often, too"""


class Simulation:
    """One run; `run` plays it, then the demands tell what became of them."""

    def __init__(
        self, setting: Setting, contender: Contender, seed: int, *, watch: Callable[["Simulation"], None] | None = None
    ) -> None:
        """`watch` is called at each tick."""
        self.setting = setting
        self.demands = setting.demands(seed)
        self.engines = virtual_engines(setting, contender)
        self.now = 0.0
        routers = setting.scenario.routers
        self.dispatchers = [
            dispatcher_of(contender.scheduling, setting.scenario.objective, Random(f"router {number} {seed}"))
            for number in range(routers.count)
        ]
        if contender.bound == "oracle":
            for dispatcher in self.dispatchers:
                dispatcher.books.outputs = TrueLengths(self.demands)
        self._routers = routers
        self._seed = seed
        self.rebalancing = Rebalancing(self.engines, routers.rebalance_seconds or inf)
        self._watch = watch
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._ticket = count()
        self._open = len(self.demands)
        self._arrivals = (demand for demand in self.demands if demand.arrived < inf)
        self._by_name = {page.replica.name: engine for engine in self.engines for page in engine.pages}
        self._sharing = None
        if (delay_s := routers.share_seconds) is not None and routers.count > 1:
            self._sharing = Sharing(
                self.dispatchers,
                lambda within_s, act, telling: self._at(self.now + max(within_s, delay_s), act, telling),
                self._heard,
                self._catch_up,
            )

    def run(self) -> None:
        """Play until every request has ended."""
        for engine in self.engines:
            for dispatcher, page in zip(self.dispatchers, engine.pages, strict=True):
                dispatcher.add(page.replica, 0.0)
        for change in self.setting.scenario.engines.slowdowns:
            self._slow_down_later(change)
        for outage in self.setting.scenario.engines.outages:
            self._die_later(outage)
        for document in self.setting.scenario.engines.others:
            others = Others(self.setting, document, self._seed)
            self._at(others.pause_s(), self._others_come, others)
        if (interval_s := self._routers.rebalance_seconds) is not None:
            self._at(interval_s, self._rebalance, interval_s)
        self._at(0.0, self._scrape, None)
        self._at(0.0, self._tick, None)
        self._next_arrival()
        events = self._events
        while self._open:
            self.now, _, act, argument = heappop(events)
            act(argument)

    def stop(self) -> None:
        """Let `run` end here; for `watch`."""
        self._open = 0

    def in_flight(self) -> tuple[int, ...]:
        """Requests that each replica holds now."""
        return tuple(len(engine.model.running) + len(engine.model.waiting) for engine in self.engines)

    # --- requests

    def _next_arrival(self) -> None:
        demand = next(self._arrivals, None)
        if demand is not None:
            self._at(demand.arrived, self._arrive_next, demand)

    def _arrive_next(self, demand: Demand) -> None:
        self._next_arrival()
        self._arrive(demand)

    def _arrive(self, demand: Demand) -> None:
        now = self.now
        self._catch_up()
        dispatcher = self.dispatchers[int(demand.router * len(self.dispatchers))]
        request = Request(
            id=str(demand.number),
            arrived=now,
            prompt_tokens=demand.estimate,
            stream=demand.stream,
            priority=demand.priority,
            caller=demand.caller,
            session=demand.session,
            blocks=demand.blocks if dispatcher.policy.reads_prefixes else (),
            block_tokens=BLOCK_TOKENS,
        )
        exchange = dispatcher.arrive(request, now, demand)
        demand.exchange = exchange
        self._carry_out(dispatcher, (exchange,))

    def _carry_out(self, dispatcher: Dispatcher, exchanges: Iterable[Exchange]) -> None:
        """Do what the dispatcher decided; what it decides meanwhile, too."""
        pending = deque(exchanges)
        while pending:
            exchange = pending.popleft()
            if exchange.phase is Phase.CONNECTING:
                pending.extend(self._send(dispatcher, exchange))
            elif exchange.phase is Phase.FAILED:
                self._end(exchange.host)

    def _send(self, dispatcher: Dispatcher, exchange: Exchange) -> Sequence[Exchange]:
        demand: Demand = exchange.host
        replica = exchange.replica
        if replica is None:
            return ()
        self._withdraw(demand)
        engine = self._by_name[replica.name]
        demand.page = engine.pages[int(demand.router * len(self.dispatchers))]
        demand.replica = engine.index
        if engine.down:
            return self._not_started(dispatcher, exchange, Fault.UNREACHABLE)
        dispatcher.sent(exchange, self.now)
        sequence = EngineSequence(demand.prompt_tokens, demand.output_tokens, demand.blocks, owner=demand)
        demand.sequence = sequence
        if self._routers.dispatch_seconds:
            self._at(self.now + self._routers.dispatch_seconds, self._deliver, (engine, sequence))
        elif engine.submit(sequence, self.now):
            self._at_end_of(engine)
        return ()

    def _withdraw(self, demand: Demand) -> None:
        """End a request at the replica that it is moved from."""
        sequence, demand.sequence = demand.sequence, None
        if sequence is None:
            return
        engine = self.engines[demand.replica]
        if sequence.phase is not SequencePhase.NEW and engine.withdraw(sequence, self.now):
            self._at_end_of(engine)

    def _deliver(self, delivery: tuple[VirtualEngine, EngineSequence]) -> None:
        engine, sequence = delivery
        demand: Demand = sequence.owner
        if demand.sequence is not sequence:
            return  # it was moved meanwhile
        if not engine.down:
            if engine.submit(sequence, self.now):
                self._at_end_of(engine)
        elif demand.exchange is not None:
            dispatcher = self._dispatcher(demand)
            self._carry_out(dispatcher, self._not_started(dispatcher, demand.exchange, Fault.LOST))

    def _not_started(self, dispatcher: Dispatcher, exchange: Exchange, fault: Fault) -> list[Exchange]:
        treatment = fault.treatment
        exchange.host.sequence = None
        return dispatcher.not_started(exchange, Failure(treatment.reason, treatment.message), fault, self.now)

    def _end(self, demand: Demand) -> None:
        exchange = demand.exchange
        if exchange is not None and exchange.failure is not None:
            demand.failure = exchange.failure.reason.header
        self._open -= 1
        turn = demand.next_turn
        if turn is not None:
            turn.arrived = self.now + turn.think_s
            self._at(turn.arrived, self._arrive, turn)

    # --- engines

    def _at_end_of(self, engine: VirtualEngine) -> None:
        if engine.ends is not None:
            self._at(engine.ends, self._step_ended, engine)

    def _step_ended(self, engine: VirtualEngine) -> None:
        if engine.ends != self.now:
            return  # the run was cut short, or the engine died
        outcome = engine.finish(self.now)
        if engine.begin(self.now):
            self._at_end_of(engine)
        if outcome.prefilled or outcome.finished:
            self._hear(engine, outcome)

    def _hear(self, engine: VirtualEngine, outcome: Outcome) -> None:
        """Routers learn of first tokens and ends."""
        now = self.now
        if any(len(dispatcher.queue) for dispatcher in self.dispatchers):
            self._catch_up()
        for sequence in outcome.prefilled:
            self._prefilled(sequence)
        for sequence in outcome.finished:
            engine.halt(sequence)
            demand: Demand = sequence.owner
            demand.ended = now
            demand.preemptions += sequence.preemptions
            demand.cached_tokens = sequence.cached_tokens
            self._finish(demand)

    def _prefilled(self, sequence: EngineSequence) -> None:
        demand: Demand = sequence.owner
        exchange, page = demand.exchange, demand.page
        if demand.first is None:
            demand.first = self.now
        if not demand.stream or exchange is None or page is None:
            return
        dispatcher = self._dispatcher(demand)
        starts = exchange.phase is Phase.WAITING
        if starts:
            dispatcher.started(exchange, self.now)
        page.replica.decode_tokens += 1
        page.advancing += 1
        demand.advancing = True
        if starts:
            self._release(dispatcher)

    def _finish(self, demand: Demand) -> None:
        dispatcher, exchange = self._dispatcher(demand), demand.exchange
        if exchange is None:
            return
        if demand.stream:
            exchange.tokens = demand.output_tokens
        else:
            dispatcher.started(exchange, self.now)
            dispatcher.progressed(exchange, demand.output_tokens)
        self._end(demand)
        self._carry_out(dispatcher, dispatcher.finished(exchange, self.now))

    def _catch_up(self) -> float:
        """Bring the books to the present, for a decision; return it."""
        for engine in self.engines:
            if engine.long:
                engine.catch_up(self.now)
        return self.now

    # --- time

    def _tick(self, _: None) -> None:
        for engine in self.engines:
            if engine.heard(self.now):
                for page in engine.pages:
                    page.replica.health.heard = page.advancing > 0
        for dispatcher in self.dispatchers:
            self._carry_out(dispatcher, dispatcher.tick(self.now))
            dispatcher.transitions.clear()
            for replica in dispatcher.books.replicas.values():
                self._look_at(dispatcher, replica)
        if self._sharing is not None:
            self._sharing.tick()
        if self._watch is not None:
            self._watch(self)
        self._at(self.now + TICK_S, self._tick, None)

    def _look_at(self, dispatcher: Dispatcher, replica: Replica) -> None:
        """Look at a replica that is suspected, or was taken out long enough ago."""
        verdict = replica.health.verdict
        if verdict is Verdict.SUSPECT or (verdict is Verdict.OUT and replica.health.out_until <= self.now):
            alive = not self._by_name[replica.name].down
            dispatcher.judged(replica, self.now, alive=alive, why="looked at")

    def _scrape(self, _: None) -> None:
        for engine in self.engines:
            if not engine.down:
                scrape = (engine, engine.signals(self.now), self.now)
                if self._routers.signals_lag_seconds:
                    self._at(self.now + self._routers.signals_lag_seconds, self._scraped, scrape)
                else:
                    self._scraped(scrape)
        self._at(self.now + self._routers.signals_seconds, self._scrape, None)

    def _scraped(self, scrape: tuple[VirtualEngine, Any, float]) -> None:
        engine, signals, at = scrape
        for dispatcher, page in zip(self.dispatchers, engine.pages, strict=True):
            page.replica.signals, page.replica.signals_at = signals, at
            dispatcher.refresh(page.replica, self.now)
            if len(dispatcher.queue):
                self._catch_up()
                self._release(dispatcher)

    def _heard(self, dispatcher: Dispatcher, replicas: list[Replica]) -> None:
        """Other routers told of these replicas."""
        self._carry_out(dispatcher, dispatcher.heard(replicas, self.now))

    def _rebalance(self, interval_s: float) -> None:
        self._catch_up()
        self.rebalancing.round(self.now)
        for dispatcher in self.dispatchers:
            for replica in dispatcher.books.replicas.values():
                dispatcher.refresh(replica, self.now)
            self._release(dispatcher)
        self._at(self.now + interval_s, self._rebalance, interval_s)

    def _others_come(self, others: Others) -> None:
        engine = self.engines[others.replica]
        if not engine.down and engine.submit(others.sequence(self.now), self.now):
            self._at_end_of(engine)
        self._at(self.now + others.pause_s(), self._others_come, others)

    # --- trouble

    def _slow_down_later(self, change: Slowdown) -> None:
        engine = self.engines[change.replica]
        self._at(change.from_seconds, self._slow_down, (engine, change.factor))
        if change.for_seconds is not None:
            self._at(change.from_seconds + change.for_seconds, self._slow_down, (engine, 1.0))

    def _slow_down(self, change: tuple[VirtualEngine, float]) -> None:
        engine, factor = change
        if self.setting.scenario.engines.speeds_told:
            for page in engine.pages:
                page.replica.prefill_rate_told = true_rate(self.setting.profile, engine.speed_slowness * factor)
        if engine.slow_down(factor, self.now):
            self._at_end_of(engine)

    def _die_later(self, outage: Outage) -> None:
        engine = self.engines[outage.replica]
        self._at(outage.at_seconds, self._die, engine)
        self._at(outage.at_seconds + outage.noticed_seconds, self._discovered, (engine, State.DOWN))
        self._at(outage.at_seconds + outage.for_seconds, self._return, engine)
        self._at(
            outage.at_seconds + outage.for_seconds + outage.noticed_seconds, self._discovered, (engine, State.READY)
        )

    def _die(self, engine: VirtualEngine) -> None:
        for sequence in engine.die(self.now):
            demand: Demand = sequence.owner
            exchange, dispatcher = demand.exchange, self._dispatcher(demand)
            if exchange is None:
                continue
            engine.halt(sequence)
            if exchange.phase is Phase.STREAMING:
                exchange.tokens = sequence.generated
                failure = Failure(Fault.LOST.treatment.reason, Fault.LOST.treatment.message)
                given = dispatcher.broken(exchange, failure, self.now, Fault.LOST)
                self._end(demand)
            else:
                demand.first = None
                given = self._not_started(dispatcher, exchange, Fault.LOST)
            self._carry_out(dispatcher, given)

    def _return(self, engine: VirtualEngine) -> None:
        engine.down = False

    def _discovered(self, found: tuple[VirtualEngine, State]) -> None:
        engine, state = found
        for dispatcher, page in zip(self.dispatchers, engine.pages, strict=True):
            page.replica.state = state
            dispatcher.refresh(page.replica, self.now)
            self._carry_out(dispatcher, dispatcher.release(self.now))

    # --- inside

    def _release(self, dispatcher: Dispatcher) -> None:
        """Something changed: send what can go now."""
        if len(dispatcher.queue):
            self._carry_out(dispatcher, dispatcher.release(self.now))

    def _dispatcher(self, demand: Demand) -> Dispatcher:
        return self.dispatchers[int(demand.router * len(self.dispatchers))]

    def _at(self, moment: float, act: Callable[[Any], None], argument: Any) -> None:
        heappush(self._events, (moment, next(self._ticket), act, argument))
