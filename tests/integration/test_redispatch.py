"""Requests that wait in an engine and are moved, over real sockets: ended at the first, sent to the second, answered once."""

import asyncio

import pytest

from halffull.core.values import State
from scripted_engines import CHAT, DONE, PLAIN, ROLE, TOKEN, Answer, Engine, World, stream, until, whole, world

STREAM = CHAT % b"true"
EVENTS = (ROLE, TOKEN, DONE)


async def role_then_wait(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the opening alone: nothing has started."""
    await stream(ROLE, end=None)(request, reader, writer)
    await wait(request, reader, writer)


async def wait(_: bytes, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Answer nothing until the router leaves."""
    assert await reader.read() == b""
    raise ConnectionError


async def answer_late(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer in full when the router has left."""
    await reader.read()
    await stream(*EVENTS)(request, reader, writer)
    raise ConnectionError


def all_at(made: World, number: int) -> bool:
    engine = made.engines[number]
    return bool(made.proxy.passages) and all(
        p.exchange is not None and p.exchange.replica is not None and p.exchange.replica.port == engine.port
        for p in made.proxy.passages
    )


async def only_at(made: World, number: int, *bodies: bytes) -> list[asyncio.Task[tuple[int, dict[str, str], bytes]]]:
    """Send requests while one replica alone is ready."""
    had = len(made.engines[number].requests)
    replicas = list(made.proxy.dispatcher.books.replicas.values())
    for place, replica in enumerate(replicas):
        replica.state = State.READY if place == number else State.DOWN
        made.proxy.refresh(replica)
    asked = [asyncio.create_task(made.post(body)) for body in bodies]
    await until(lambda: len(made.engines[number].requests) == had + len(bodies))
    for replica in replicas:
        replica.state = State.READY
        made.proxy.refresh(replica)
    return asked


@pytest.mark.parametrize("first", [wait, role_then_wait, answer_late], ids=["mute", "opened", "late"])
async def test_a_stream_moves_from_an_engine_that_does_not_start_it(first: Answer) -> None:
    slow, quick = Engine(first), Engine(stream(*EVENTS))
    async with world(slow, quick, policy="llumnix") as w:
        asked = await only_at(w, 0, STREAM, STREAM, STREAM)
        answers = await asyncio.gather(*asked)

        for status, headers, body in answers:
            assert (status, body) == (200, b"".join(EVENTS))
            assert headers["x-halffull-replica"] == "r1"
        await until(lambda: slow.closed == 3)
        assert len(quick.requests) == 3
        assert w.proxy.telemetry.moves == {"moved": 3}
        assert w.proxy.telemetry.failures == {}


async def test_a_draining_replica_gives_away_what_has_not_started_plain_answers_too() -> None:
    gap = asyncio.Event()
    leaving = Engine(stream(*EVENTS, gap=gap), wait)
    async with world(leaving, Engine(whole(PLAIN)), policy="round-robin") as w:
        [going_on] = await only_at(w, 0, STREAM)
        await until(lambda: any(p.exchange is not None and p.exchange.started_at for p in w.proxy.passages))
        replica = w.proxy.dispatcher.books.replicas["r0"]
        replica.prefill_rate = 1e-9  # so that the plain answer is not taken to have started
        [plain] = await only_at(w, 0, CHAT % b"false")
        replica.state = State.DRAINING
        w.proxy.refresh(replica)

        assert (await plain)[2] == PLAIN
        assert not going_on.done()
        gap.set()
        assert (await going_on)[2] == b"".join(EVENTS)


async def test_a_client_that_leaves_after_the_move_frees_the_second_engine() -> None:
    first, second = Engine(wait), Engine(wait)
    async with world(first, second, policy="llumnix") as w:
        [asked] = await only_at(w, 0, STREAM)
        await until(lambda: len(second.requests) == 1 and all_at(w, 1))
        assert first.closed == 1
        w.writers[0].close()

        await until(lambda: second.closed == 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
