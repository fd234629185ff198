"""A whole router process before simulated engine processes: the openai client, edits of its file, signals, faults."""

import asyncio
import json
import os
import signal
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

import processes
from processes import Process, write_config

QUESTION: Any = [{"role": "user", "content": "Is the GPU half full?"}]
LONG: dict[str, Any] = {"messages": QUESTION, "max_tokens": 2000, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    """Two engines for all tests of this file that end none."""
    with ExitStack() as stack:
        yield [stack.enter_context(processes.engine(tmp_path_factory.mktemp("engine"))) for _ in range(2)]


@pytest.fixture
def config(tmp_path: Path, engines: list[Process]) -> Path:
    path = tmp_path / "router.json"
    write_config(path, [engine.address for engine in engines])
    return path


@pytest.fixture
def router(tmp_path: Path, config: Path, eventually: Callable[..., None]) -> Iterator[Process]:
    with processes.router(tmp_path / "router", config) as process:
        eventually(lambda: ready_replicas(process) == 2)
        yield process


def ready_replicas(router: Process) -> int:
    return sum(replica["state"] == "Ready" for replica in router.status()["replicas"])


def client(router: Process, **settings: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0, **settings)


def running(router: Process) -> int:
    return sum(replica["inFlight"] for replica in router.status()["replicas"])


# --- the openai client


def test_plain_and_streamed_answers(router: Process) -> None:
    with client(router) as api:
        assert [model.id for model in api.models.list()] == ["m"]
        plain = api.chat.completions.create(model="m", messages=QUESTION, max_tokens=7)
        assert plain.usage is not None
        assert plain.usage.completion_tokens == 7
        stream = api.chat.completions.create(
            model="m", messages=QUESTION, max_tokens=9, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 9
        assert chunks[-2].choices[0].finish_reason == "length"
        text = api.completions.with_raw_response.create(model="m", prompt="Once", max_tokens=3)
        assert text.headers["x-halffull-replica"] in {replica["name"] for replica in router.status()["replicas"]}
        assert text.headers["x-request-id"]
    status = router.status()
    assert status["requests"]["completed"] >= 3
    assert status["tokens"]["source"] == "usage"


async def test_many_at_once_with_the_async_client(router: Process) -> None:
    async with openai.AsyncOpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0) as api:

        async def ask(number: int) -> int:
            stream = await api.chat.completions.create(model="m", messages=QUESTION, max_tokens=number, stream=True)
            return sum([1 async for chunk in stream if chunk.choices and chunk.choices[0].delta.content])

        assert await asyncio.gather(*(ask(5) for _ in range(40))) == [5] * 40
    assert {r["name"] for r in router.status()["replicas"]} == {d["replica"] for d in decisions(router)}


def decisions(router: Process) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(router.admin("/decisions"))["decisions"]
    return found


def test_errors_are_those_the_client_knows(router: Process) -> None:
    with client(router) as api:
        with pytest.raises(openai.NotFoundError, match="does not exist") as unknown:
            api.chat.completions.create(model="other", messages=QUESTION)
        assert unknown.value.response.headers["x-halffull-reason"] == "unknown_model"
        with pytest.raises(openai.BadRequestError):
            api.chat.completions.create(model="m", messages=QUESTION, max_tokens=-1)
        with pytest.raises(openai.PermissionDeniedError):
            api.post("/load_lora_adapter", body={}, cast_to=object)
    assert router.status()["requests"]["failed"] == {"unknown_model": 1, "admin_path": 1}


def test_a_client_that_gives_up_frees_the_engine(router: Process, eventually: Callable[..., None]) -> None:
    with client(router, timeout=0.5) as api, pytest.raises(openai.APITimeoutError):
        api.chat.completions.create(model="m", **LONG | {"max_tokens": 100_000})
    eventually(lambda: running(router) == 0)
    eventually(lambda: all(not r["signals"]["running"] for r in router.status()["replicas"]))
    assert router.status()["requests"]["cancelled"] == 1


# --- edits


async def test_fifty_swaps_under_load_fail_no_request(router: Process, config: Path, engines: list[Process]) -> None:
    policies = ["round-robin", "sal", "random", "least-requests", "power-of-two"]
    endpoints = [engine.address for engine in engines]
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
                    async with session.get(f"http://127.0.0.1:{router.admin_port}/status") as answer:
                        status = await answer.json()
                    if status["config"]["hash"] == wanted:
                        break
                    await asyncio.sleep(0.01)
            assert status["policy"] == policy
        swapping = False
    status = router.status()
    assert status["requests"]["failed"] == {}
    assert status["requests"]["completed"] == done > 50


def test_a_bad_document_is_refused_and_the_last_good_one_stays(
    router: Process, config: Path, engines: list[Process], eventually: Callable[..., None]
) -> None:
    before = router.status()["config"]
    assert before["error"] is None
    config.write_text(config.read_text().replace('"sal"', '"no-such-policy"'))
    eventually(lambda: router.status()["config"]["error"])
    after = router.status()["config"]
    assert "scheduling.policy" in after["error"]
    assert "no-such-policy" in after["error"]
    assert {**after, "error": None} == before
    with client(router) as api:
        api.completions.create(model="m", prompt="still here", max_tokens=1)
    config.write_text('{"half": ')
    eventually(lambda: "not JSON" in router.status()["config"]["error"])
    hash_ = write_config(config, [engine.address for engine in engines], scheduling={"policy": "random"})
    eventually(lambda: router.status()["config"]["hash"] == hash_)
    assert router.status()["config"]["error"] is None
    assert "refused_total 2.0" in router.admin("/metrics")


def test_weights_apply_and_lapse(
    router: Process, config: Path, engines: list[Process], eventually: Callable[..., None]
) -> None:
    slow, other = (engine.address for engine in engines)
    balance = {"validSeconds": 1.5, "replicas": {slow: {"weight": 0.25, "suspended": True}, other: {"drain": True}}}
    write_config(config, [slow, other], balance=balance)

    def seen() -> dict[str, tuple[float, bool, str]]:
        return {r["name"]: (r["weight"], r["suspended"], r["state"]) for r in router.status()["replicas"]}

    eventually(lambda: seen() == {slow: (0.25, True, "Ready"), other: (1.0, False, "Draining")})
    eventually(lambda: seen() == {slow: (1.0, False, "Ready"), other: (1.0, False, "Draining")})
    assert "lapsed" in router.log


def test_endpoints_come_and_go_with_the_document(
    router: Process, config: Path, engines: list[Process], eventually: Callable[..., None]
) -> None:
    first, second = (engine.address for engine in engines)
    write_config(config, [second])
    eventually(lambda: [r["name"] for r in router.status()["replicas"]] == [second])
    write_config(config, [first, second])
    eventually(lambda: ready_replicas(router) == 2)


# --- readiness and end


def test_not_ready_without_a_document(tmp_path: Path, engines: list[Process], eventually: Callable[..., None]) -> None:
    path = tmp_path / "router.json"
    admin_port = free_port()
    arguments = ("router", "--config", str(path), "--port", "0", "--admin-port", str(admin_port))
    with processes.halffull(tmp_path / "router", *arguments, wait=False) as process:
        process.admin_port = admin_port
        eventually(lambda: answers(process))
        assert readiness(process) == 503
        assert "No such file" in process.status()["config"]["error"]
        write_config(path, [engines[0].address])
        eventually(lambda: readiness(process) == 200)
        assert process.end() == 0


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(router: Process) -> bool:
    try:
        return router.admin("/healthz") == "ok\n"
    except urllib.error.URLError:
        return False


def readiness(router: Process) -> int:
    try:
        router.admin("/readyz")
    except urllib.error.HTTPError as error:
        return error.code
    return 200


async def test_sigterm_lets_streams_end_and_goes_on_accepting(
    tmp_path: Path, engines: list[Process], eventually: Callable[..., None]
) -> None:
    path = tmp_path / "router.json"
    drain = {"router": {"drain": {"acceptSeconds": 2, "seconds": 60}}}
    write_config(path, [engine.address for engine in engines], **drain)
    with processes.router(tmp_path / "router", path) as process:
        async with openai.AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as api:
            stream = await api.chat.completions.create(model="m", stream=True, **LONG)
            tokens = 0
            async for chunk in stream:
                tokens += bool(chunk.choices and chunk.choices[0].delta.content)
                if tokens == 1:
                    process.popen.send_signal(signal.SIGTERM)
                    await asyncio.to_thread(eventually, lambda: readiness(process) == 503)
                    late = await api.completions.with_raw_response.create(model="m", prompt="late", max_tokens=1)
                    assert late.headers["connection"] == "close"
            assert tokens == LONG["max_tokens"]
        assert await asyncio.to_thread(process.popen.wait, 60) == 0


# --- faults


def test_a_dead_replica_costs_no_request(
    tmp_path: Path, engines: list[Process], eventually: Callable[..., None]
) -> None:
    path = tmp_path / "router.json"
    with processes.engine(tmp_path / "doomed") as doomed:
        write_config(path, [doomed.address, engines[0].address], scheduling={"policy": "round-robin"})
        with processes.router(tmp_path / "router", path) as process:
            eventually(lambda: ready_replicas(process) == 2)
            os.kill(doomed.popen.pid, signal.SIGKILL)
            doomed.popen.wait()
            with client(process) as api:
                for _ in range(20):
                    api.completions.create(model="m", prompt="who is there", max_tokens=1)
            assert process.status()["requests"]["moved"].get("engine_unreachable", 0) >= 1
            eventually(lambda: ready_replicas(process) == 1)


async def test_a_full_queue_is_429_and_a_slow_one_504(
    tmp_path: Path, engines: list[Process], eventually: Callable[..., None]
) -> None:
    path = tmp_path / "router.json"
    scheduling = {
        "policy": "sal",
        "parameters": {"limit": {"maxInFlight": 1}},
        "queue": {"maxRequests": 1, "timeoutSeconds": 1},
    }
    write_config(path, [engines[0].address], scheduling=scheduling)
    with processes.router(tmp_path / "router", path) as process:
        await asyncio.to_thread(eventually, lambda: ready_replicas(process) == 1)
        async with openai.AsyncOpenAI(base_url=f"{process.url}/v1", api_key="none", max_retries=0) as api:
            stream = await api.chat.completions.create(model="m", stream=True, **LONG | {"max_tokens": 100_000})
            await anext(aiter(stream))
            waiting = asyncio.create_task(api.completions.create(model="m", prompt="x", max_tokens=1))
            await asyncio.to_thread(eventually, lambda: process.status()["queue"]["requests"] == 1)
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
    with processes.router(tmp_path / "router", path) as process:
        with client(process) as api, pytest.raises(openai.InternalServerError) as away:
            api.completions.create(model="m", prompt="x")
        assert away.value.status_code == 503
        assert away.value.response.headers["x-halffull-reason"] == "no_replica"
        assert readiness(process) == 200
