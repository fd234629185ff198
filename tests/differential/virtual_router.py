"""A router process on a virtual clock: real proxy, clients, connections and scrapes, in-memory transports, modelled engines.

It plays the demands of one simulated run, and keeps what the router decided. Nothing of `halffull.sim.simulation` is used:
engines take HTTP requests, go step by step, and answer with server-sent events.
"""

import asyncio
import json
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random

from halffull.api.router_config import EngineTarget, RouterConfig, Source
from halffull.api.scenario import Contender
from halffull.api.scheduling import Scheduling
from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.engines.catalog import ENGINES
from halffull.router import scheduler
from halffull.router.http.upstream import Pool, Upstream
from halffull.router.observability.telemetry import Decision
from halffull.router.proxy import Proxy, Settings
from halffull.router.requests import prompt
from halffull.router.signals.scrape import Plan, Scraper
from halffull.router.sources.engine_client import EngineClient
from halffull.sim.demand import Demand
from halffull.sim.engine_model import EngineModel, EngineSequence, Outcome
from halffull.sim.fleet import replica_of
from halffull.sim.setting import Setting
from halffull.sim.simulation import TICK_S
from halffull.sim.trace import BLOCK_TOKENS
from in_memory import Transport, whole

MODEL = "m"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class VirtualRouter:
    """One router before modelled engines; `play` answers all demands of a setting."""

    def __init__(self, setting: Setting, contender: Contender, seed: int) -> None:
        self.setting = setting
        self.demands = in_sessions(setting.demands(seed))
        self.now = 0.0
        self.first_tokens: dict[str, float] = {}
        """when the client of each streamed request got its first event"""
        document = RouterConfig(
            model_deployment=Source(name=MODEL), model=MODEL, engine=EngineTarget(), scheduling=contender.scheduling
        )
        made = scheduler.build(document.scheduling)
        dispatcher = Dispatcher(
            made.policy, made.ordering, made.gate, Random(f"router 0 {seed}"), scheduler.limits(document)
        )
        adapter = ENGINES["vllm"]
        # One byte of text is one token: estimates are exact, and the blocks that the router hashes are those of the trace.
        settings = Settings(MODEL, bytes_per_token=1.0, request_s=1e6)
        self.proxy = Proxy(dispatcher, adapter, settings, lambda: self.now, "t-")
        plan = Plan(EngineClient(EngineTarget(), lambda: self.now), adapter)
        self.scraper = Scraper(plan, lambda: self.now, Random(0), self.proxy.refresh)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = count()
        self._open = len(self.demands)
        self._arrivals = iter(self.demands)
        self.engines = [self._engine(index) for index in range(setting.scenario.engines.count)]

    @property
    def decisions(self) -> list[Decision]:
        """What the router decided, in order."""
        return list(self.proxy.telemetry.decisions)

    async def play(self) -> None:
        """Send every demand, until all are answered."""
        self.at(0.0, self._scrape)
        self.at(0.0, self._tick)
        self._next_arrival()
        while self._open:
            self.now, _, act = heappop(self._events)
            act()
            await asyncio.sleep(0)

    def swap(self, scheduling: Scheduling) -> None:
        """Let another policy take over, as a new configuration does."""
        document = RouterConfig(
            model_deployment=Source(name=MODEL), model=MODEL, engine=EngineTarget(), scheduling=scheduling
        )
        made = scheduler.build(scheduling)
        limits = scheduler.limits(document)
        self.proxy.dispatcher.configure(made.policy, made.ordering, made.gate, limits, self.now)
        self.proxy.release()

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Do something at a moment."""
        heappush(self._events, (moment, next(self._ticket), act))

    # --- clients

    def _next_arrival(self) -> None:
        demand = next(self._arrivals, None)
        if demand is not None:
            self.at(demand.arrived, lambda: self._arrive(demand))

    def _arrive(self, demand: Demand) -> None:
        self._next_arrival()
        client = self.proxy.protocol()
        transport = Transport(client.connection_lost, lambda data: self._hear(demand, data))
        client.connection_made(transport)
        client.data_received(request_of(demand))

    def _hear(self, demand: Demand, data: bytes) -> None:
        assert not data.startswith(b"HTTP/1.1") or data.startswith(b"HTTP/1.1 200"), data
        name = str(demand.number)
        if demand.stream and b"data:" in data:
            self.first_tokens.setdefault(name, self.now)
        if data.endswith(b"0\r\n\r\n" if demand.stream else b"}}"):
            self._open -= 1

    # --- engines

    def _engine(self, index: int) -> "VirtualEngine":
        replica = replica_of(index, self.setting.profile)
        speeds = self.setting.scenario.engines.speeds or (1.0,)
        engine = VirtualEngine(self, replica, slowness=1 / speeds[index % len(speeds)])
        self.proxy.add(replica)
        self.proxy.engines._pools[replica] = engine
        return engine

    # --- time

    def _tick(self) -> None:
        self.proxy.tick()
        assert not self.proxy.dispatcher.transitions, "a healthy replica is suspected"
        self.at(self.now + TICK_S, self._tick)

    def _scrape(self) -> None:
        for engine in self.engines:
            signals = self.proxy.adapter.signals(engine.exposition())
            self.scraper.told(engine.replica, signals, self.now, ())
        self.at(self.now + self.setting.scenario.routers.signals_seconds, self._scrape)


class Connection(Transport):
    """The engine's side hears at once of the end."""

    closing: Callable[[], None]

    def close(self) -> None:
        self.closing()
        super().close()


class VirtualEngine(Pool):
    """An engine that takes HTTP requests over in-memory connections and answers at the pace of the engine model."""

    def __init__(self, router: VirtualRouter, replica: Replica, slowness: float) -> None:
        super().__init__(replica.host, replica.port, lambda: router.now)
        self.replica = replica
        self.model = EngineModel(
            router.setting.profile, block_size=BLOCK_TOKENS, prefix_cache=router.setting.prefix_cache
        )
        self._router = router
        self._slowness = slowness
        self._told: dict[EngineSequence, int] = {}

    def take(self) -> Upstream:
        """Return a connection: opening one takes no time."""
        upstream = super().take()
        if upstream is None:
            upstream = Upstream(self, lambda: self._router.now)
            received: list[bytes] = []
            transport = Connection(upstream.connection_lost, lambda data: self._receive(upstream, received, data))
            transport.closing = lambda: self._leave(upstream)
            upstream.connection_made(transport)
        return upstream

    def _leave(self, upstream: Upstream) -> None:
        """The router closed a connection: an engine forgets what it was asked there."""
        for sequence in [sequence for sequence in self._told if sequence.owner[1] is upstream]:
            self.model.cancel(sequence)
            del self._told[sequence]

    def exposition(self) -> bytes:
        """What a scrape finds."""
        model = self.model
        lines = {
            "num_requests_running": len(model.running),
            "num_requests_waiting": len(model.waiting),
            "kv_cache_usage_perc": model.kv.used / model.kv.capacity,
            "prefix_cache_queries_total": model.kv.queries,
            "prefix_cache_hits_total": model.kv.hits,
        }
        text = "".join(f'vllm:{name}{{engine="0",model_name="m"}} {value!r}\n' for name, value in lines.items())
        return f'{text}vllm:cache_config_info{{kv_cache_size_tokens="{model.kv.capacity}"}} 1.0\n'.encode()

    def _receive(self, upstream: Upstream, received: list[bytes], data: bytes) -> None:
        received.append(data)
        if not whole(b"".join(received)):
            return
        head, _, body = b"".join(received).partition(b"\r\n\r\n")
        received.clear()
        number = int(head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0])
        demand = self._router.demands[number]
        fields, own = json.loads(body), json.loads(body_of(demand))
        assert {name: fields[name] for name in own} == own, "the engine gets the client's request"
        told = bool(fields.get("stream_options", {}).get("continuous_usage_stats"))
        sequence = EngineSequence(
            demand.prompt_tokens, demand.output_tokens, demand.blocks, owner=(demand, upstream, told)
        )
        self._told[sequence] = 0
        self.model.submit(sequence)
        if not self.model.busy:
            self._begin()

    def _begin(self) -> None:
        seconds = self.model.start()
        if seconds is not None:
            self._router.at(self._router.now + seconds * self._slowness, self._step_ended)

    def _step_ended(self) -> None:
        """Answers leave after the next step has begun: tokens first, then first tokens, then ends."""
        outcome = self.model.finish()
        generated = {sequence: self.model.generated(sequence) for sequence in (*self.model.running, *outcome.finished)}
        self._begin()
        self._answer(outcome, generated)

    def _answer(self, outcome: Outcome, generated: dict[EngineSequence, int]) -> None:
        for sequence, tokens in generated.items():
            if sequence not in outcome.prefilled and tokens > self._told[sequence]:
                self._token(sequence)
        for sequence in outcome.prefilled:
            self._token(sequence)
        for sequence in outcome.finished:
            assert self._told.pop(sequence) == sequence.output_tokens
            self._end(sequence)

    def _token(self, sequence: EngineSequence) -> None:
        demand, upstream, told = sequence.owner
        self._told[sequence] += 1
        if demand.stream:
            opening = STREAM if self._told[sequence] == 1 else b""
            choice = {"index": 0, "text": " a", "finish_reason": None}
            upstream.data_received(opening + chunk(event(demand, [choice], self._told[sequence] if told else None)))

    def _end(self, sequence: EngineSequence) -> None:
        demand, upstream, told = sequence.owner
        tokens = demand.output_tokens
        if demand.stream:
            choice = {"index": 0, "text": "", "finish_reason": "length"}
            last = event(demand, [choice], tokens if told else None) + event(demand, [], tokens)
            upstream.data_received(chunk(last + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            answer = {"choices": [{"text": " a", "finish_reason": "length"}], "usage": usage_of(demand, tokens)}
            body = json.dumps(answer).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            upstream.data_received(head + body)


def session_of(demand: Demand) -> str:
    """The session that a client names; a few make many requests."""
    return f"session-{demand.number * demand.number % 23}"


def in_sessions(demands: list[Demand]) -> list[Demand]:
    """Note each demand's session as routers hash it."""
    for demand in demands:
        demand.session = prompt.session({b"x-halffull-session": session_of(demand).encode()}, "")
    return demands


def usage_of(demand: Demand, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": demand.prompt_tokens, "completion_tokens": tokens}


def event(demand: Demand, choices: list[dict[str, object]], tokens: int | None) -> bytes:
    """One event of a stream; it tells usage where `tokens` is given."""
    usage = None if tokens is None else usage_of(demand, tokens)
    return b"data: " + json.dumps({"choices": choices, "usage": usage}, separators=(",", ":")).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def body_of(demand: Demand) -> bytes:
    """The JSON body of a demand: as many bytes of text as it has tokens, and the same text where it has the same blocks."""
    blocks = "".join(f"{block:0{BLOCK_TOKENS}d}" for block in demand.blocks)
    rest = demand.prompt_tokens - len(blocks)
    own = f"{demand.number:x}".rjust(rest, "x")[-rest:] if rest else ""
    return json.dumps({"model": MODEL, "prompt": blocks + own, "stream": demand.stream}).encode()


def request_of(demand: Demand) -> bytes:
    """The bytes that a client sends."""
    body = body_of(demand)
    headers = {
        "host": "m",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": str(demand.number),
        "x-halffull-priority": str(demand.priority),
        "x-halffull-caller": demand.caller,
        "x-halffull-session": session_of(demand),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
    return f"POST /v1/completions HTTP/1.1\r\n{lines}\r\n".encode() + body
