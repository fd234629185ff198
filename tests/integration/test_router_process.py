"""A whole router process before simulated engine processes: edits of its file, signals, faults, readiness.

That clients work is tested in tests/clients; here it is what only a process shows.
"""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from processes import Running, running
from routers import address, admin, readiness, ready_replicas, status, write_config

Eventually = Callable[..., None]
LONG: dict[str, Any] = {"prompt": "Is the GPU half full?", "max_tokens": 8000, "extra_body": {"ignore_eos": True}}


def engine(folder: Path) -> Any:
    """Run a simulated engine that serves model `m` fast."""
    return running(folder, "engine", "--model", "m", "--speedup", "20")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Running]]:
    """Two engines for all tests of this file that end none."""
    folder = tmp_path_factory.mktemp("engines")
    with ExitStack() as stack:
        yield [stack.enter_context(engine(folder / str(number))) for number in range(2)]


@pytest.fixture
def config(tmp_path: Path, engines: list[Running]) -> Path:
    path = tmp_path / "router.json"
    write_config(path, [address(engine) for engine in engines])
    return path


@pytest.fixture
def router(tmp_path: Path, config: Path, eventually: Eventually) -> Iterator[Running]:
    with running(tmp_path / "router", "router", "--config", str(config)) as process:
        eventually(lambda: ready_replicas(process) == 2)
        yield process


def client(router: Running, **settings: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0, **settings)


# --- edits


async def test_fifty_swaps_under_load_fail_no_request(router: Running, config: Path, engines: list[Running]) -> None:
    policies = ["round-robin", "sal", "random", "least-requests", "power-of-two"]
    endpoints = [address(engine) for engine in engines]
    done, swapping = 0, True

    async def load(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal done
        body = {"model": "m", "prompt": "x " * 50 * (number % 7), "max_tokens": 5 + number, "stream": number % 3 > 0}
        while swapping:
            async with session.post(f"{router.url}/v1/completions", json=body) as answer:
                text = await answer.text()
                assert answer.status == 200, text
                assert ("[DONE]" in text) == body["stream"]
                assert '"error"' not in text
                done += 1

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(load(session, number))
        for swap in range(50):
            policy = policies[swap % len(policies)]
            wanted = write_config(config, endpoints, scheduling={"policy": policy, "gate": ("none", "limit")[swap % 2]})
            async with asyncio.timeout(60):
                while True:
                    async with session.get(f"{router.admin_url}/status") as answer:
                        seen = await answer.json()
                    if seen["config"]["hash"] == wanted:
                        break
                    await asyncio.sleep(0.01)
            assert seen["policy"] == policy
        swapping = False
    requests = status(router)["requests"]
    assert requests["failed"] == {}
    assert requests["completed"] == done > 50


def test_a_bad_document_is_refused_and_the_last_good_one_stays(
    router: Running, config: Path, engines: list[Running], eventually: Eventually
) -> None:
    before = status(router)["config"]
    assert before["error"] is None
    config.write_text(config.read_text().replace('"sal"', '"no-such-policy"'))
    eventually(lambda: status(router)["config"]["error"])
    after = status(router)["config"]
    assert "scheduling.policy" in after["error"]
    assert "no-such-policy" in after["error"]
    assert {**after, "error": None} == before
    with client(router) as api:
        api.completions.create(model="m", prompt="still here", max_tokens=1)
    config.write_text('{"half": ')
    eventually(lambda: "not JSON" in status(router)["config"]["error"])
    hash_ = write_config(config, [address(engine) for engine in engines], scheduling={"policy": "random"})
    eventually(lambda: status(router)["config"]["hash"] == hash_)
    assert status(router)["config"]["error"] is None
    assert "refused_total 2.0" in admin(router, "/metrics")


def test_weights_apply_and_lapse(router: Running, config: Path, engines: list[Running], eventually: Eventually) -> None:
    slow, other = (address(engine) for engine in engines)
    balance = {"validSeconds": 1.5, "replicas": {slow: {"weight": 0.25, "suspended": True}, other: {"drain": True}}}
    write_config(config, [slow, other], balance=balance)

    def seen() -> dict[str, tuple[float, bool, str]]:
        return {r["name"]: (r["weight"], r["suspended"], r["state"]) for r in status(router)["replicas"]}

    eventually(lambda: seen() == {slow: (0.25, True, "Ready"), other: (1.0, False, "Draining")})
    eventually(lambda: seen() == {slow: (1.0, False, "Ready"), other: (1.0, False, "Draining")})
    assert "lapsed" in router.log.read_text()


def test_endpoints_come_and_go_with_the_document(
    router: Running, config: Path, engines: list[Running], eventually: Eventually
) -> None:
    first, second = (address(engine) for engine in engines)
    write_config(config, [second])
    eventually(lambda: [r["name"] for r in status(router)["replicas"]] == [second])
    write_config(config, [first, second])
    eventually(lambda: ready_replicas(router) == 2)


# --- readiness and end


def test_not_ready_without_a_document(tmp_path: Path, engines: list[Running], eventually: Eventually) -> None:
    path, admin_port = tmp_path / "router.json", free_port()
    command = f"router --host 127.0.0.1 --port 0 --admin-port {admin_port} --config {path}".split()
    with subprocess.Popen([sys.executable, "-m", "halffull", *command]) as process:
        try:
            router = Running(process, tmp_path, 0, admin_port)
            eventually(lambda: readiness(router) == 503)
            assert admin(router, "/healthz") == "ok\n"
            assert "No such file" in status(router)["config"]["error"]
            write_config(path, [address(engines[0])])
            eventually(lambda: readiness(router) == 200)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_sigterm_lets_streams_end_and_goes_on_accepting(
    tmp_path: Path, engines: list[Running], eventually: Eventually
) -> None:
    path = tmp_path / "router.json"
    drain = {"router": {"drain": {"acceptSeconds": 2, "seconds": 60}}}
    write_config(path, [address(engine) for engine in engines], **drain)
    with running(tmp_path / "router", "router", "--config", str(path)) as process:
        async with openai.AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as api:
            stream = await api.completions.create(model="m", stream=True, **LONG)
            tokens = 0
            async for chunk in stream:
                tokens += bool(chunk.choices and chunk.choices[0].text)
                if tokens == 1:
                    process.process.send_signal(signal.SIGTERM)
                    await asyncio.to_thread(eventually, lambda: readiness(process) == 503)
                    late = await api.completions.with_raw_response.create(model="m", prompt="late", max_tokens=1)
                    assert late.headers["connection"] == "close"
            assert tokens == LONG["max_tokens"]
        assert await asyncio.to_thread(process.process.wait, 60) == 0


async def test_what_outlives_the_drain_ends_with_an_error(
    tmp_path: Path, engines: list[Running], eventually: Eventually
) -> None:
    """One streams, one is answered in full, one waits in the queue: each is told."""
    path = tmp_path / "router.json"
    limits = {"gate": "limit", "parameters": {"limit": {"maxInFlight": 2}}}
    write_config(path, [address(engines[0])], scheduling=limits, router={"drain": {"acceptSeconds": 0, "seconds": 0.3}})
    with running(tmp_path / "router", "router", "--config", str(path)) as process:
        url = f"{process.url}/v1/completions"
        body = {"model": "m", "prompt": "x", "max_tokens": 8000, "ignore_eos": True}

        async def ask(session: aiohttp.ClientSession, **fields: Any) -> tuple[int, str, str]:
            async with session.post(url, json=body | fields) as answer:
                return answer.status, answer.headers.get("x-halffull-reason", ""), await answer.text()

        def held() -> tuple[int, int]:
            document = status(process)
            return document["replicas"][0]["inFlight"], document["queue"]["requests"]

        async with aiohttp.ClientSession() as session:
            asked = [asyncio.create_task(ask(session, stream=True)), asyncio.create_task(ask(session))]
            await asyncio.to_thread(eventually, lambda: held() == (2, 0))
            asked.append(asyncio.create_task(ask(session)))
            await asyncio.to_thread(eventually, lambda: held() == (2, 1))
            process.process.send_signal(signal.SIGTERM)
            streamed, *plain = await asyncio.gather(*asked)
        assert await asyncio.to_thread(process.process.wait, 60) == 0
    assert [answer[:2] for answer in plain] == [(503, "shutting_down")] * 2
    assert streamed[0] == 200
    assert "The router shuts down" in streamed[2].split("\n\n")[-3]


# --- faults


def test_a_dead_replica_costs_no_request(tmp_path: Path, engines: list[Running], eventually: Eventually) -> None:
    path = tmp_path / "router.json"
    with engine(tmp_path / "doomed") as doomed:
        write_config(path, [address(doomed), address(engines[0])], scheduling={"policy": "round-robin"})
        with running(tmp_path / "router", "router", "--config", str(path)) as process:
            eventually(lambda: ready_replicas(process) == 2)
            doomed.process.terminate()
            doomed.process.wait(30)
            with client(process) as api:
                for _ in range(20):
                    api.completions.create(model="m", prompt="who is there", max_tokens=1)
            assert status(process)["requests"]["moved"].get("engine_unreachable", 0) >= 1
            eventually(lambda: ready_replicas(process) == 1)


async def test_a_full_queue_is_429_and_a_slow_one_504(
    tmp_path: Path, engines: list[Running], eventually: Eventually
) -> None:
    path = tmp_path / "router.json"
    scheduling = {
        "policy": "sal",
        "parameters": {"limit": {"maxInFlight": 1}},
        "queue": {"maxRequests": 1, "timeoutSeconds": 1},
    }
    write_config(path, [address(engines[0])], scheduling=scheduling)
    with running(tmp_path / "router", "router", "--config", str(path)) as process:
        await asyncio.to_thread(eventually, lambda: ready_replicas(process) == 1)
        async with openai.AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as api:
            stream = await api.completions.create(model="m", stream=True, **LONG | {"max_tokens": 100_000})
            await anext(aiter(stream))
            waiting = asyncio.create_task(api.completions.create(model="m", prompt="x", max_tokens=1))
            await asyncio.to_thread(eventually, lambda: status(process)["queue"]["requests"] == 1)
            with pytest.raises(openai.RateLimitError) as full:
                await api.completions.create(model="m", prompt="x", max_tokens=1)
            assert full.value.response.headers["x-halffull-reason"] == "queue_full"
            assert int(full.value.response.headers["retry-after"]) >= 1
            with pytest.raises(openai.APIStatusError) as slow:
                await waiting
            assert slow.value.status_code == 504
            assert slow.value.response.headers["x-halffull-reason"] == "queue_timeout"
            await stream.close()


def test_no_replica_is_503_after_its_time(tmp_path: Path) -> None:
    path = tmp_path / "router.json"
    write_config(path, [f"127.0.0.1:{free_port()}"], scheduling={"queue": {"noReplicaSeconds": 0.3}})
    with running(tmp_path / "router", "router", "--config", str(path)) as process:
        with client(process) as api, pytest.raises(openai.InternalServerError) as away:
            api.completions.create(model="m", prompt="x")
        assert away.value.status_code == 503
        assert away.value.response.headers["x-halffull-reason"] == "no_replica"
        assert readiness(process) == 200
