"""What a router says of itself: /status, /readyz, /metrics and /decisions, from real parts without a network of engines."""

import json
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from halffull.api.scheduling import Scheduling
from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.core.limits import Limits
from halffull.core.values import Request, Signals, State
from halffull.router import scheduler
from halffull.router.config import Config
from halffull.router.fleet import Fleet
from halffull.router.observability import admin, metrics
from halffull.router.observability.status import Report
from halffull.router.observability.telemetry import Decision, Telemetry
from halffull.router.signals.scrape import Plan, Scraper
from halffull.router.sources.discovery import Endpoint

DOCUMENT = {
    "hash": "h" * 64,
    "modelDeployment": {"namespace": "ns", "name": "m", "uid": "u", "generation": 3},
    "schedulingPolicy": {"namespace": "ns", "name": "p", "uid": "v", "generation": 2},
    "model": "m",
    "engine": {"endpoints": ["10.0.0.1:8000"]},
    "scheduling": {"policy": "round-robin", "parameters": {"limit": {"maxInFlight": 7}}},
}


class World:
    """The parts of a router that its status reads."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.draining = False
        made = scheduler.build(Scheduling.model_validate(DOCUMENT["scheduling"]))
        self.dispatcher = Dispatcher(made.policy, made.ordering, made.gate, random.Random(1), Limits())
        self.telemetry = Telemetry()
        self.fleet = Fleet(self.dispatcher.books, self, self, lambda: self.now)
        self.config = Config(lambda *_: None)
        self.report = Report(
            config=self.config,
            fleet=self.fleet,
            dispatcher=self.dispatcher,
            telemetry=self.telemetry,
            tokens=lambda: {"ratio": 4.0, "source": "prior"},
            sources=lambda: {"configuration": "", "endpoints": "the API server is away"},
            scraper=Scraper(cast("Plan", None), lambda: self.now, random.Random(1), lambda _: None),
            connections=lambda: 5,
            draining=lambda: self.draining,
            recording=lambda: {"recorded": 7},
            prefix_cache=lambda _: {"source": "estimate", "predictedShare": 0.5, "engineShare": 0.25},
            sharing=None,
            now=lambda: self.now,
        )

    def add(self, replica: Replica) -> None:
        self.dispatcher.add(replica, self.now)

    def remove(self, replica: Replica) -> None:
        self.dispatcher.remove(replica)

    def refresh(self, replica: Replica) -> None:
        self.dispatcher.refresh(replica, self.now)

    def added(self, replica: Replica) -> None:
        pass

    def removed(self, replica: Replica) -> None:
        pass

    def serve(self) -> None:
        """A configuration, a replica that runs one request, and what happened before."""
        self.config.offer(json.dumps(DOCUMENT), "here")
        self.fleet.found({"a": Endpoint("a", "10.0.0.1", 8000, State.READY)})
        replica = self.dispatcher.books.replicas["a"]
        replica.signals, replica.signals_at = Signals(running=2.0, kv_usage=0.25), self.now
        self.dispatcher.arrive(Request("r1", self.now, prompt_tokens=100), self.now)
        self.telemetry.received, self.telemetry.completed = 3, 2
        self.telemetry.answers["/v1/completions", 200] = 2
        self.telemetry.failures["queue_full"] = 1
        self.telemetry.moves["engine_busy"] = 4
        self.telemetry.verdicts["a", "suspect"] = 1
        for seconds in (0.002, 0.3):
            self.telemetry.loop_delay.observe(seconds)
        for seconds in (0.1, 0.2, 0.3):
            self.telemetry.of("a").first_token(self.now, seconds)
        self.telemetry.of("a").first_token(self.now - 60, 9.0)
        self.telemetry.decisions.append(Decision(self.now - 1, "r1", "a", 1, 0.5, 100, 1, 100))


async def recorded() -> AsyncIterator[bytes]:
    """What a recorder has."""
    yield b'{"recording":1}\n'
    yield b'{"input_length":3}\n'


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(
        TestServer(admin.application(world.report, metrics.registry(world.report), recorded))
    ) as made:
        yield made


def test_status_shows_what_the_policy_has_learned(world: World) -> None:
    assert world.report.document()["learned"] == {}
    made = scheduler.build(Scheduling(policy="adaptive"))
    world.dispatcher.configure(made.policy, made.ordering, made.gate, Limits(), world.now)
    learned = world.report.document()["learned"]
    assert learned == dict.fromkeys(["sal", "predicted-ttft", "kv-cost", "least-requests"], 0.25)


def test_status_of_a_router_that_serves(world: World) -> None:
    world.serve()
    document = world.report.document()
    assert document["config"] == {
        "hash": "h" * 64,
        "modelDeployment": DOCUMENT["modelDeployment"],
        "schedulingPolicy": DOCUMENT["schedulingPolicy"],
        "error": None,
    }
    names = (document["policy"], document["ordering"], document["gate"], document["ready"], document["draining"])
    assert names == ("round-robin", "fcfs", "limit", True, False)
    assert document["replicas"] == [
        {
            "name": "a",
            "address": "10.0.0.1:8000",
            "state": "Ready",
            "inFlight": 1,
            "prefillTokens": 100,
            "waitingPromptTokens": 100,
            "decoding": 0,
            "decodeTokens": 0,
            "seenTokens": 0,
            "peersInFlight": 0,
            "peersPrefillTokens": 0,
            "peersDecodeTokens": 0,
            "deferenceSeconds": 0.0,
            "kvTokens": None,
            "prefillTokensPerSecond": 10000.0,
            "weight": 1.0,
            "suspended": False,
            "maxInFlight": 7,
            "signals": {"state": "fresh", "running": 2.0, "waiting": None, "kvUsage": 0.25},
            "adapters": [],
            "prefixCache": {"source": "estimate", "predictedShare": None, "engineShare": 0.25},
            "ttftSeconds": {"p50": 0.2, "p99": 0.3},
        }
    ]
    assert document["sources"] == {
        "configuration": {"error": None},
        "endpoints": {"error": "the API server is away"},
    }
    assert document["requests"]["failed"] == {"queue_full": 1}
    assert json.loads(json.dumps(document)) == document


def test_status_before_any_configuration(world: World) -> None:
    document = world.report.document()
    assert document["config"] == {"hash": None, "modelDeployment": None, "schedulingPolicy": None, "error": None}
    assert (document["policy"], document["ready"], document["replicas"]) == ("sal", False, [])


def test_ready_means_configuration_and_first_list_until_drain(world: World) -> None:
    world.config.offer(json.dumps(DOCUMENT), "here")
    assert not world.report.ready
    world.fleet.found({})
    assert world.report.ready
    world.draining = True
    assert not world.report.ready
    world.draining = False
    world.config.offer("{", "here")
    assert world.report.ready


async def test_paths_of_the_admin_port(world: World, client: TestClient[Any, Any]) -> None:
    assert (await client.get("/healthz")).status == 200
    assert (await client.get("/readyz")).status == 503
    world.serve()
    assert (await client.get("/readyz")).status == 200
    assert (await (await client.get("/status")).json())["requests"]["completed"] == 2
    assert (await (await client.get("/decisions")).json()) == {
        "decisions": [
            {
                "ageSeconds": 1.0,
                "request": "r1",
                "replica": "a",
                "attempt": 1,
                "queueSeconds": 0.5,
                "promptTokens": 100,
                "inFlight": 1,
                "prefillTokens": 100,
            }
        ]
    }
    assert (await (await client.get("/decisions?count=0")).json()) == {"decisions": []}
    assert (await client.get("/decisions?count=x")).status == 400
    assert await (await client.get("/recording")).text() == '{"recording":1}\n{"input_length":3}\n'


async def test_metrics_are_the_counters(world: World, client: TestClient[Any, Any]) -> None:
    world.serve()
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(await response.text())}
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name.startswith("halffull_router_")
    }
    assert samples["halffull_router_ready",] == 1
    assert samples["halffull_router_source_up", "configuration"] == 1
    assert samples["halffull_router_source_up", "endpoints"] == 0
    assert samples["halffull_router_client_connections",] == 5
    assert samples["halffull_router_loop_delay_seconds_bucket", "0.002"] == 1
    assert samples["halffull_router_loop_delay_seconds_bucket", "+Inf"] == 2
    assert samples["halffull_router_loop_delay_seconds_sum",] == pytest.approx(0.302)
    assert samples["halffull_router_requests_received_total",] == 3
    assert samples["halffull_router_answers_total", "/v1/completions", "200"] == 2
    assert samples["halffull_router_errors_total", "queue_full"] == 1
    assert samples["halffull_router_moves_total", "engine_busy"] == 4
    assert samples["halffull_router_replicas", "Ready"] == 1
    assert samples["halffull_router_replica_verdicts_total", "a", "suspect"] == 1
    assert samples["halffull_router_replica_in_flight", "a"] == 1
    assert samples["halffull_router_ttft_seconds_bucket", "0.2", "a"] == 2
    assert samples["halffull_router_ttft_seconds_bucket", "+Inf", "a"] == 4
    assert samples["halffull_router_ttft_seconds_count", "a"] == 4
    assert samples["halffull_router_ttft_seconds_sum", "a"] == pytest.approx(9.6)
    assert ("halffull_router_replica_kv_tokens", "a") not in samples
    assert families["halffull_router_ttft_seconds"].type == "histogram"
    assert "process_resident_memory_bytes" in families


def test_counters_of_replicas_that_left_are_forgotten(world: World) -> None:
    world.serve()
    world.telemetry.of("b").requests = 1
    world.telemetry.keep({"b"})
    assert list(world.telemetry.replicas) == ["b"]
    assert not world.telemetry.verdicts
