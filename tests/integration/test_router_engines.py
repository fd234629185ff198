"""Our own calls to engines: scraping, model lists, probing of fixed endpoints; engines are small servers here."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from halffull.api.engine import EngineLimits
from halffull.api.router_config import EngineTarget
from halffull.core.books import Replica
from halffull.core.values import State
from halffull.engines.catalog import ENGINES
from halffull.router.signals.scrape import Plan, Scraper
from halffull.router.sources import endpoints
from halffull.router.sources.discovery import Endpoint, Endpoints
from halffull.router.sources.endpoints import FixedSource, Saved
from halffull.router.sources.engine_client import EngineClient, UnreachableError

METRICS = """vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0
"""


class Engine:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.port = 0
        self.healthy = True
        self.probes = 0
        self.metrics: str | None = METRICS
        self.models: Any = {"data": [{"id": "m"}, {"id": "m-lora"}]}
        self.keys: set[str | None] = set()

    def application(self) -> web.Application:
        async def health(_: web.Request) -> web.Response:
            self.probes += 1
            return web.Response(status=200 if self.healthy else 503)

        async def metrics(request: web.Request) -> web.Response:
            self.keys.add(request.headers.get("authorization"))
            return web.Response(status=404) if self.metrics is None else web.Response(text=self.metrics)

        async def models(_: web.Request) -> web.Response:
            said = self.models if isinstance(self.models, bytes) else json.dumps(self.models).encode()
            return web.Response(body=said, content_type="application/json")

        made = web.Application()
        made.router.add_get("/health", health)
        made.router.add_get("/metrics", metrics)
        made.router.add_get("/v1/models", models)
        return made


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[Engine]:
    runner = web.AppRunner(engine.application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", engine.port).start()
    engine.port = runner.addresses[0][1]
    yield engine
    await runner.cleanup()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def scraping(target: EngineTarget, limits: EngineLimits, port: int) -> AsyncIterator[tuple[Scraper, Replica]]:
    now = asyncio.get_running_loop().time
    plan = Plan(EngineClient(target, now), ENGINES["vllm"], 0.05, limits)
    scraper = Scraper(plan, now, random.Random(1), lambda _: None)
    replica = Replica("a", "127.0.0.1", port)
    scraper.added(replica)
    yield scraper, replica
    scraper.close()
    scraper.plan.client.close()


async def test_signals_capacity_and_models_come_into_the_books() -> None:
    async with serving(Engine()) as engine, scraping(EngineTarget(), EngineLimits(), engine.port) as (_, replica):
        assert replica.max_sequences == 256
        await until(lambda: replica.models)
        assert replica.signals is not None
        assert (replica.signals.running, replica.signals.waiting) == (3, 1)
        assert replica.kv_tokens == 1600
        assert replica.models == ("m", "m-lora")
    assert engine.keys == {None}


async def test_an_engine_goes_on_being_asked_whatever_it_says_and_whatever_becomes_of_it() -> None:
    async with serving(Engine()) as engine:
        engine.models = b'{"data":%b}' % (b"[" * 100_000)
        raised = 0

        def fail(_: Replica) -> None:
            nonlocal raised
            raised += 1
            if raised == 1:
                raise KeyError("a bug")

        now = asyncio.get_running_loop().time
        scraper = Scraper(Plan(EngineClient(EngineTarget(), now), ENGINES["vllm"], 0.05), now, random.Random(1), fail)
        replica = Replica("a", "127.0.0.1", engine.port)
        scraper.added(replica)
        await until(lambda: raised > 5)
        assert not replica.models
        engine.models = {"data": [{"id": "m"}]}
        await until(lambda: replica.models)
        scraper.close()
        scraper.plan.client.close()


async def test_what_the_user_says_wins_and_the_key_is_sent(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    target = EngineTarget(api_key_file=str(key))
    limits = EngineLimits(max_sequences=8, kv_tokens=5000)
    async with serving(Engine()) as engine, scraping(target, limits, engine.port) as (scraper, replica):
        await until(lambda: replica.signals)
        assert (replica.max_sequences, replica.kv_tokens) == (8, 5000)
        assert engine.keys == {"Bearer secret"}
        scraper.plan.client.close()
        scraper.configure(Plan(EngineClient(target, asyncio.get_running_loop().time), ENGINES["vllm"], 0.05))
        assert replica.max_sequences == 256
        await until(lambda: replica.kv_tokens == 1600)


async def test_a_failed_scrape_leaves_what_was_known() -> None:
    async with serving(Engine()) as engine, scraping(EngineTarget(), EngineLimits(), engine.port) as (scraper, replica):
        await until(lambda: replica.signals)
        engine.metrics = None
        await until(lambda: scraper.failures)
        seen = replica.signals_at
        await until(lambda: scraper.failures > 2)
        assert replica.signals is not None
        assert replica.signals_at == seen


@pytest.mark.parametrize("models", [[], {"data": [{}]}, {"data": []}, "x"])
async def test_an_odd_model_list_is_no_list(models: Any) -> None:
    engine = Engine()
    engine.models = models
    async with serving(engine), scraping(EngineTarget(), EngineLimits(), engine.port) as (scraper, replica):
        await until(lambda: scraper.scrapes > 3)
        assert replica.models == ()


# --- fixed endpoints


class Found:
    """What a source found, last and in all."""

    def __init__(self) -> None:
        self.sets: list[Endpoints] = []

    def __call__(self, found: Endpoints) -> None:
        self.sets.append(found)

    @property
    def states(self) -> dict[str, State]:
        return {name: endpoint.state for name, endpoint in self.sets[-1].items()} if self.sets else {}


@asynccontextmanager
async def following(*addresses: str, heard: Callable[[str], float] = lambda _: float("-inf")) -> AsyncIterator[Found]:
    found = Found()
    client = EngineClient(EngineTarget(), asyncio.get_running_loop().time)
    source = FixedSource(
        addresses, 8000, client=client, health_path="/health", found=found, heard=heard, rng=random.Random(1)
    )
    task = asyncio.create_task(source.run())
    yield found
    task.cancel()
    await asyncio.wait([task])
    client.close()


async def test_fixed_endpoints_go_down_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PROBE_INTERVAL_S", 0.05)
    engine = Engine()
    async with serving(engine):
        name = f"localhost:{engine.port}"
        async with following(name) as found:
            await until(lambda: found.states == {name: State.READY})
            assert found.sets[-1][name].host in {"127.0.0.1", "::1"}
            engine.healthy = False
            await until(lambda: found.states == {name: State.DOWN})
            engine.healthy = True
            await until(lambda: found.states == {name: State.READY})
            assert len(found.sets) == 3


async def test_an_endpoint_that_is_not_there_is_down_from_the_start_and_does_not_hide_the_others() -> None:
    async with serving(Engine()) as engine:
        there, away, no_name = f"127.0.0.1:{engine.port}", "no-such-name.invalid:8000", "no..name:8000"
        async with following(there, away, no_name) as found:
            await until(lambda: found.states == {there: State.READY, away: State.DOWN, no_name: State.DOWN})
            assert len(found.sets) == 1


async def test_an_endpoint_that_never_was_ready_stays_down_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PROBE_INTERVAL_S", 0.02)
    engine = Engine()
    engine.healthy = False
    async with serving(engine), following(f"127.0.0.1:{engine.port}") as found:
        await until(lambda: engine.probes > 5)
        assert set(found.states.values()) == {State.DOWN}
        assert len(found.sets) == 1
        engine.healthy = True
        await until(lambda: set(found.states.values()) == {State.READY})


async def test_metrics_that_come_save_the_probes_until_they_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PROBE_INTERVAL_S", 0.05)
    monkeypatch.setattr(endpoints, "HEARD_PROBE_INTERVAL_S", 60.0)
    now, comes = asyncio.get_running_loop().time, True
    asked: list[str] = []

    def heard(name: str) -> float:
        asked.append(name)
        return now() if comes else now() - 60

    async with serving(Engine()) as engine, following(f"127.0.0.1:{engine.port}", heard=heard) as found:
        await until(lambda: len(asked) > 5)
        assert engine.probes == 1
        engine.healthy = comes = False
        await until(lambda: set(found.states.values()) == {State.DOWN})


# --- calls


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """An engine that gives each request of a connection the next of these answers, then closes it; and what it was asked."""
    asked: list[bytes] = []

    open_now: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            for answer in answers:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        open_now.discard(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    server.close()
    await until(lambda: not open_now)


async def test_a_connection_is_used_again_and_opened_anew_where_the_engine_had_closed_it() -> None:
    client = EngineClient(EngineTarget(), asyncio.get_running_loop().time)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with answering(answer, answer) as (address, asked):
        for _ in range(5):
            assert await client.get(address, "/health", 30) == (200, b"ok")
        client.close()
        assert asked == [b"GET /health HTTP/1.1\r\nhost: %b\r\naccept: */*\r\n\r\n" % address.encode()] * 5


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", ConnectionError),
        (b"nonsense\r\n\r\n", ConnectionError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (5 << 20, bytes(5 << 20)), ValueError),
    ],
    ids=["short", "no HTTP", "too large"],
)
async def test_an_answer_that_is_none_is_a_failure(answer: bytes, error: type[Exception]) -> None:
    client = EngineClient(EngineTarget(), asyncio.get_running_loop().time)
    async with answering(answer) as (address, _):
        with pytest.raises(error):
            await client.get(address, "/metrics", 30)
        client.close()


async def test_an_engine_that_says_nothing_is_a_failure() -> None:
    client = EngineClient(EngineTarget(), asyncio.get_running_loop().time)
    async with answering(b"", b"") as (address, _):
        with pytest.raises(TimeoutError):
            await client.get(address, "/metrics", 0.05)
    with pytest.raises(UnreachableError):
        await client.get("127.0.0.1:1", "/metrics", 30)
    client.close()


def test_kept_endpoints_are_read_back_for_the_same_service_only(tmp_path: Path) -> None:
    kept = {"a": Endpoint("a", "10.0.0.1", 8000, State.DRAINING)}
    saved = Saved(tmp_path)
    assert saved.read("ns/s") is None
    saved.write("ns/s", kept)
    assert Saved(tmp_path).read("ns/s") == kept
    assert saved.read("ns/other") is None
    (tmp_path / "endpoints.json").write_text('{"service": "ns/s", "endp')
    assert saved.read("ns/s") is None
    Saved(None).write("ns/s", kept)
    Saved(tmp_path / "gone").write("ns/s", kept)
