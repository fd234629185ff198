"""What goes wrong in the router itself, behind real sockets: faults of its code, and a system that gives it nothing more."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from halffull.core.books import Replica
from halffull.core.values import Request
from scripted_engines import CHAT, PLAIN, Engine, parse, post, until, whole, world


@pytest.mark.parametrize("streamed", [b"true", b"false"])
async def test_a_fault_of_ours_at_one_request_is_no_others(streamed: bytes, caplog: pytest.LogCaptureFixture) -> None:
    def place(request: Request, _: Replica) -> None:
        if request.id == "bad":
            raise KeyError("a bug")

    async with world(Engine(whole(PLAIN))) as w:
        w.proxy.placed = place
        replica = w.proxy.dispatcher.books.replicas["r0"]
        replica.suspended = True
        w.proxy.refresh(replica)
        asked = []
        for name in (b"bad", b"good"):
            asked.append(asyncio.create_task(w.post(CHAT % streamed, extra=b"x-request-id: %b\r\n" % name)))
            await until(lambda: len(w.proxy.dispatcher.queue) == len(asked))
        replica.suspended = False
        w.proxy.refresh(replica)
        (bad, headers, _), (good, _, body) = await asyncio.gather(*asked)

        assert (bad, headers["x-halffull-reason"]) == (500, "internal")
        assert (good, body) == (200, PLAIN)
        assert "a bug" in caplog.text


async def test_a_witness_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise KeyError("a bug")

    async with world(Engine(whole(PLAIN))) as w:
        w.proxy.witnesses.append(fail)

        assert (await w.post(CHAT % b"false"))[0] == 200
        assert "a bug" in caplog.text


@asynccontextmanager
async def no_file_left() -> AsyncIterator[None]:
    """This process can open nothing while this lasts."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used[0] + 1, limits[1]))
    try:
        with suppress(OSError):
            while True:
                used.append(os.dup(0))
        yield
    finally:
        for file in used:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_router_without_files_waits_and_blames_no_replica(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(whole(PLAIN))
    async with world(engine) as w:
        health = w.proxy.dispatcher.books.replicas["r0"].health
        (reader, writer), (later, late_writer) = await w.connect(), await w.connect()
        await until(lambda: len(w.proxy.clients) == 2)
        async with no_file_left():
            w.proxy.engines.connect_s = 0.2
            writer.write(post(CHAT % b"false"))
            status, headers, _ = parse(await asyncio.wait_for(reader.readuntil(b"}}"), 20))
            assert (status, headers["x-halffull-reason"]) == (503, "no_connection")
            assert headers["retry-after"] == "1"
            w.proxy.engines.connect_s = 60.0
            late_writer.write(post(CHAT % b"false", extra=b"connection: close\r\n"))
            await until(lambda: bool(w.proxy.passages))

        assert parse(await asyncio.wait_for(later.read(), 20))[0] == 200
        assert (health.failures, health.paused_until) == (0, 0.0)
        assert caplog.text.count("no further connection") == 1
