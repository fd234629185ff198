"""Rows of the table of faults (core/faults.py) that a real vLLM can be brought to, through a real router process.

Greedy answers repeat exactly, so the text of a stream that lost its replica is compared with the text of one that did not.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from processes import Running
from real_vllm.answers import Reply, ask, chat, client, completion, replica, until
from routers import status
from vllms import DRAINS, MUTE, QUEUED, SEQUENCES, TELLS, Pool, Vllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
StartRouter = Callable[..., Running]
TURNS = {"policy": "round-robin", "gate": "none", "signals": {"intervalSeconds": 0.5}}
TOKENS = 1000


def requests() -> list[tuple[str, dict]]:
    """Four of each API; with eight on two engines that run four at once all can start."""
    return [kind(f"tell me of {number}", TOKENS) for number in range(SEQUENCES) for kind in (chat, completion)]


@pytest.fixture(scope="module")
def right(vllms: Pool) -> list[Reply]:
    """What an engine says where nothing goes wrong, straight from it."""
    (engine,) = vllms.lend(MUTE)

    async def answers() -> list[Reply]:
        async with client() as session:
            return await asyncio.gather(*(ask(session, engine.url, request) for request in requests()))

    return asyncio.run(answers())


def assert_whole(answers: list[Reply], right: list[Reply]) -> None:
    for answer, wanted in zip(answers, right, strict=True):
        assert (answer.status, answer.error, answer.done) == (200, None, True)
        assert len(answer.ids) == 1
        assert (answer.finish, answer.usage) == (wanted.finish, wanted.usage)
        assert answer.text == wanted.text


async def stream_through(
    session: aiohttp.ClientSession, router: Running, victim: Vllm, fault: Callable[[], Awaitable[None] | None]
) -> tuple[list[Reply], int]:
    """Send the eight streams; when two of `victim` have some text, let the fault happen; return the answers, and how many
    were struck at least.
    """
    answers = [Reply() for _ in requests()]
    running = [
        asyncio.create_task(ask(session, router.url, request, answer))
        for request, answer in zip(requests(), answers, strict=True)
    ]
    async with asyncio.timeout(120):
        while (struck := sum(len(a.text) >= 8 and a.replica == victim.address for a in answers)) < 2:
            await asyncio.sleep(0.005)
    assert not any(a.done and a.replica == victim.address for a in answers), "too short for the fault to strike"
    happening = fault()
    if happening is not None:
        await happening
    return await asyncio.gather(*running), struck


async def test_overload(vllms: Pool, start_router: StartRouter) -> None:
    """What a full engine refuses goes to the other; where both refuse, the client gets one well-formed 503."""
    full, other = vllms.lend(MUTE, DRAINS)
    router = start_router([full, other], scheduling=TURNS)
    async with client() as session:
        load = [asyncio.create_task(ask(session, full.url, completion("load", 2000))) for _ in range(QUEUED)]
        await until(lambda: full.signals().waiting == QUEUED - SEQUENCES)
        plain = [ask(session, router.url, completion("plain", 4, stream=False)) for _ in range(4)]
        answers = await asyncio.gather(*plain)
        assert {(a.status, a.replica) for a in answers} == {(200, other.address)}
        assert status(router)["requests"]["moved"].get("engine_busy", 0) >= 1  # by 503 before the answer
        assert replica(router, full.address)["state"] == "Ready"
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
        await until(lambda: replica(router, full.address)["signals"]["running"] == 0)

        burst = [chat(f"burst {n}", 24) if n % 4 else chat(f"burst {n}", 24, stream=False) for n in range(80)]
        answers = await asyncio.gather(*(ask(session, router.url, request) for request in burst))
    served = [a for a in answers if a.status == 200]
    refused = [a for a in answers if a.status != 200]
    assert len(served) >= 2 * QUEUED
    assert all(a.error is None and len(a.text) == 24 for a in served)
    assert {(a.status, a.reason) for a in refused} == {(503, "engine_busy")}
    assert all(int(a.retry_after or 0) >= 1 for a in refused)
    # The other form: the first event of a stream that began with 200. Plain answers had 503 above, and here where their turn was last.
    messages = {a.error["message"] for a in refused if a.error}
    assert "The engine took no request." in messages
    assert messages <= {"Every engine is busy.", "The engine took no request."}


async def test_stopped_and_continued(vllms: Pool, start_router: StartRouter, right: list[Reply]) -> None:
    """SIGSTOP: found by silence; its streams go on elsewhere; SIGCONT: it comes back."""
    stopped, other = vllms.lend(MUTE, DRAINS)
    router = start_router([stopped, other], scheduling=TURNS)
    async with client() as session:
        try:
            answers, struck = await stream_through(session, router, stopped, lambda: stopped.signal(signal.SIGSTOP))
            assert replica(router, stopped.address)["state"] in {"Down", "Suspect"}
        finally:
            stopped.signal(signal.SIGCONT)
        assert_whole(answers, right)
        assert status(router)["requests"]["continued"] >= struck
        await until(lambda: replica(router, stopped.address)["state"] == "Ready")
        assert (await ask(session, router.url, chat("again", 4))).status == 200


async def test_aborted(vllms: Pool, start_router: StartRouter, right: list[Reply]) -> None:
    """`finish_reason: abort`: what has text goes on elsewhere, what has none is sent elsewhere."""
    aborting, other = vllms.lend(MUTE, DRAINS)
    router = start_router([aborting, other], scheduling=TURNS)
    async with client() as session:
        waiting: list[asyncio.Task[Reply]] = []

        async def abort() -> None:
            waiting.extend(asyncio.create_task(ask(session, router.url, chat(f"next {n}", 8))) for n in range(8))
            await until(lambda: (aborting.signals().waiting or 0) >= 2)
            async with session.post(aborting.url + "/abort_requests", json={"request_ids": []}) as answer:
                assert answer.status == 200

        answers, struck = await stream_through(session, router, aborting, abort)
        afterwards = await asyncio.gather(*waiting)
    assert_whole(answers, right)
    assert {(a.status, len(a.text), a.finish, str(a.error)) for a in afterwards} == {(200, 8, "length", "None")}
    counts = status(router)["requests"]
    assert counts["failed"] == {}
    assert counts["continued"] >= struck
    assert counts["moved"]["engine_busy"] >= struck + 2


async def test_terminated_while_it_drains(vllms: Pool, start_router: StartRouter, right: list[Reply]) -> None:
    """SIGTERM with a shutdown time-out: its streams end there; what it is sent meanwhile is aborted, and goes elsewhere."""
    drains, other = vllms.lend(DRAINS, MUTE)
    router = start_router([drains, other], scheduling=TURNS)
    async with client() as session:
        late: list[asyncio.Task[Reply]] = []

        def terminate() -> None:
            drains.terminate()
            late.extend(asyncio.create_task(ask(session, router.url, chat(f"late {n}", 8))) for n in range(8))

        answers, _ = await stream_through(session, router, drains, terminate)
        afterwards = await asyncio.gather(*late)
    assert_whole(answers, right)
    assert {(a.status, len(a.text), a.finish, str(a.error)) for a in afterwards} == {(200, 8, "length", "None")}
    assert {a.replica for a in afterwards} == {other.address}


async def test_killed(vllms: Pool, start_router: StartRouter, right: list[Reply]) -> None:
    """Kill -9 in mid-stream: chat and completions go on elsewhere with the very text, and usage of the whole."""
    killed, other = vllms.lend(DRAINS, MUTE)
    router = start_router([killed, other], scheduling=TURNS)
    async with client() as session:
        answers, struck = await stream_through(session, router, killed, lambda: killed.signal(signal.SIGKILL))
        assert_whole(answers, right)
        assert status(router)["requests"]["continued"] >= struck
        assert status(router)["requests"]["failed"] == {}
        more = await asyncio.gather(*(ask(session, router.url, chat("more", 4)) for _ in range(8)))
        assert {(a.status, a.replica) for a in more} == {(200, other.address)}


async def test_terminated_and_mute(vllms: Pool, start_router: StartRouter, right: list[Reply]) -> None:
    """SIGTERM as vLLM is by default: its core is gone, connections stay open and mute. What it held goes elsewhere."""
    mute, other = vllms.lend(MUTE, TELLS)  # which the next module asks for
    router = start_router([mute, other], scheduling=TURNS)
    async with client() as session:
        answers, struck = await stream_through(session, router, mute, mute.terminate)
        assert_whole(answers, right)
        assert status(router)["requests"]["continued"] >= struck
        await until(lambda: replica(router, mute.address)["state"] in {"Down", "Suspect"})
