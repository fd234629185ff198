"""Engines that fall silent before a real router process: a stopped one, a mute one; and busy ones that are left alone."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from processes import Running, running
from routers import address, status, write_config

CHAT = {"model": "m", "messages": [{"role": "user", "content": "tell me"}], "stream": True, "ignore_eos": True}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


async def chat(session: aiohttp.ClientSession, router: Running, **fields: Any) -> tuple[str, str, str]:
    """Return the replica, all text, and the code of the error that ended it, if any."""
    async with session.post(router.url + "/v1/chat/completions", json=CHAT | fields) as answer:
        assert answer.status == 200, await answer.text()
        text, code, replica = "", "", answer.headers["x-halffull-replica"]
        async for line in answer.content:
            data = line.removeprefix(b"data: ").strip()
            if not data or data == b"[DONE]":
                continue
            event = json.loads(data)
            if "error" in event:
                code = event["error"]["code"]
            for choice in event.get("choices", ()):
                text += choice["delta"].get("content") or ""
        return replica, text, code


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Running, list[Running]]]:
    with ExitStack() as stack:
        options = ("--model", "m", "--max-num-seqs", "4", "--mute-on-sigterm")
        engines = [stack.enter_context(running(tmp_path / name, "engine", *options)) for name in ("a", "b")]
        write_config(
            tmp_path / "config.json",
            [address(engine) for engine in engines],
            scheduling={"policy": "round-robin", "signals": {"intervalSeconds": 0.5}},
        )
        router = stack.enter_context(running(tmp_path / "router", "router", "--config", str(tmp_path / "config.json")))
        yield router, engines
        for engine in engines:
            os.kill(engine.process.pid, signal.SIGCONT)


def state(router: Running, engine: Running) -> str:
    return next((r["state"] for r in status(router)["replicas"] if r["name"] == address(engine)), "")


def refuses(engine: Running) -> bool:
    host, _, port = address(engine).rpartition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) != 0


async def hold_and_silence(
    router: Running, engines: list[Running], fault: signal.Signals, resume: str
) -> list[tuple[str, str, str]]:
    """Give each engine four started requests and six waiting ones, silence the first; return all answers."""
    sick, well = engines
    await until(lambda: state(router, sick) == state(router, well) == "Ready")
    headers = {"x-halffull-resume": resume}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90), headers=headers) as session:
        asked = [asyncio.create_task(chat(session, router, max_tokens=400)) for _ in range(20)]
        await until(lambda: all(r["decoding"] == 4 and r["inFlight"] == 10 for r in status(router)["replicas"]))
        os.kill(sick.process.pid, fault)
        await until(lambda: state(router, sick) in {"Suspect", "Down"})
        return await asyncio.gather(*asked)


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGTERM], ids=["stopped", "mute"])
async def test_what_a_silent_engine_holds_goes_on_elsewhere(
    fleet: tuple[Running, list[Running]], fault: signal.Signals
) -> None:
    router, engines = fleet
    answers = await hold_and_silence(router, engines, fault, "continue")

    assert {code for _, _, code in answers} == {""}
    assert {len(text.split()) for _, text, _ in answers} == {400}
    assert len({text for _, text, _ in answers}) == 1, "engines answer the same prompt alike, so no seam shows"
    requests = status(router)["requests"]
    moved = requests["moved"]  # those that wait there may leave as soon as it is suspected, before it is found dead
    assert (requests["continued"], sum(moved.values())) == (4, 10)
    assert moved.keys() <= {"engine_silent", "moved"}
    assert moved["engine_silent"] >= 4
    if fault is signal.SIGSTOP:
        assert state(router, engines[0]) == "Down"
        os.kill(engines[0].process.pid, signal.SIGCONT)
        await until(lambda: state(router, engines[0]) == "Ready")


async def test_streams_of_an_engine_that_is_out_before_it_is_found_silent_go_on_elsewhere(
    fleet: tuple[Running, list[Running]],
) -> None:
    """It takes no connection any more, as one that shuts down in order, and so it goes out; but its streams hang."""
    router, (sick, well) = fleet
    await until(lambda: state(router, sick) == state(router, well) == "Ready")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        asked = [asyncio.create_task(chat(session, router, max_tokens=400)) for _ in range(8)]
        await until(lambda: all(replica["decoding"] == 4 for replica in status(router)["replicas"]))
        os.kill(sick.process.pid, signal.SIGTERM)
        await until(lambda: refuses(sick))
        while state(router, sick) != "Down":  # each refused connection pauses it for a while
            asked.append(asyncio.create_task(chat(session, router, max_tokens=4)))
            await asyncio.sleep(0.1)
        answers = await asyncio.gather(*asked)

    assert {code for _, _, code in answers} == {""}
    assert [len(text.split()) for _, text, _ in answers] == [400] * 8 + [4] * (len(asked) - 8)
    assert status(router)["requests"]["continued"] == 4
    assert "is out: The engine could not be reached: " in router.log.read_text()


async def test_a_started_stream_that_may_not_go_on_ends_with_an_error(fleet: tuple[Running, list[Running]]) -> None:
    router, engines = fleet
    answers = await hold_and_silence(router, engines, signal.SIGSTOP, "never")

    broken = [answer for answer in answers if answer[2]]
    assert {(replica, code) for replica, _, code in broken} == {(address(engines[0]), "engine_silent")}
    assert len(broken) == 4
    moved = status(router)["requests"]["moved"]
    assert sum(moved.values()) == 6
    assert moved.keys() <= {"engine_silent", "moved"}


async def test_a_long_plain_answer_and_a_full_engine_are_left_alone(fleet: tuple[Running, list[Running]]) -> None:
    router, engines = fleet
    await until(lambda: all(state(router, engine) == "Ready" for engine in engines))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)) as session:

        async def plain() -> int:
            body = CHAT | {"stream": False, "max_tokens": 600}
            async with session.post(router.url + "/v1/chat/completions", json=body) as answer:
                return (await answer.json())["usage"]["completion_tokens"]

        tokens = await asyncio.gather(*(plain() for _ in range(8)))

    assert tokens == [600] * 8
    assert status(router)["requests"]["moved"] == {}
    assert all(state(router, engine) == "Ready" for engine in engines)
