"""The router's queue between real sockets: bounds, time-outs, waiting for a replica, classes and callers."""

import asyncio

from halffull.core.books import Replica
from halffull.core.health import Verdict
from halffull.core.limits import Limits
from scripted_engines import CHAT, DONE, PLAIN, ROLE, TOKEN, Engine, hang, post, stream, until, whole, world


async def test_the_queue_refuses_expires_and_waits() -> None:
    engine = Engine(hang)
    limits = Limits(queue_requests=1, queue_timeout_s=0.3, no_replica_s=0.2)
    async with world(engine, limits=limits, gate=1) as w:
        _, holder = await w.connect()
        holder.write(post(CHAT % b"true"))
        await until(lambda: bool(engine.requests))
        waiting = asyncio.create_task(w.post(CHAT % b"false"))
        await until(lambda: len(w.proxy.dispatcher.queue) == 1)
        status, headers, _ = await w.post(CHAT % b"false")
        assert (status, headers["x-halffull-reason"]) == (429, "queue_full")
        assert int(headers["retry-after"]) > 0
        status, headers, _ = await waiting
        assert (status, headers["x-halffull-reason"]) == (504, "queue_timeout")
        holder.transport.abort()


async def test_without_a_replica_a_request_waits_and_then_fails_or_runs() -> None:
    engine = Engine(whole(PLAIN))
    async with world(engine, limits=Limits(no_replica_s=0.2)) as w:
        replica = w.proxy.dispatcher.books.replicas["r0"]
        w.proxy.remove(replica)
        status, headers, _ = await w.post(CHAT % b"false")
        assert (status, headers["x-halffull-reason"]) == (503, "no_replica")
        waiting = asyncio.create_task(w.post(CHAT % b"false"))
        await until(lambda: len(w.proxy.dispatcher.queue) == 1)
        w.proxy.add(Replica("r1", "127.0.0.1", engine.port))
        assert (await waiting)[0] == 200


async def test_a_replica_that_is_back_is_tried_beside_the_streams_that_it_kept() -> None:
    gap, tried = asyncio.Event(), asyncio.Event()

    async def answer_later(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await tried.wait()
        await whole(PLAIN)(request, reader, writer)

    engine = Engine(stream(ROLE, TOKEN, DONE, gap=gap), answer_later, whole(PLAIN))
    async with world(engine) as w:
        dispatcher = w.proxy.dispatcher
        replica, now = dispatcher.books.replicas["r0"], w.proxy.clock()
        kept = asyncio.create_task(w.post(CHAT % b"true"))
        await until(lambda: replica.decoding == 1)
        dispatcher.judged(replica, now, alive=False, why="it could not be reached")
        dispatcher.judged(replica, now, alive=True, why="it is back")
        asked = [asyncio.create_task(w.post(CHAT % b"false")) for _ in range(2)]
        await until(lambda: len(engine.requests) == 2 and len(dispatcher.queue) == 1)
        tried.set()

        assert [status for status, _, _ in await asyncio.gather(*asked)] == [200, 200]
        assert replica.health.verdict is Verdict.WELL
        assert not kept.done()
        gap.set()
        assert (await kept)[0] == 200


async def test_classes_and_callers_order_the_queue() -> None:
    order: list[bytes] = []

    async def note(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order.append(request.rsplit(b'"content":"', 1)[1][:2])
        assert b"x-halffull" not in request
        await whole(PLAIN)(request, reader, writer)

    engine = Engine(note)
    async with world(engine, gate=1) as w:
        replica = w.proxy.dispatcher.books.replicas["r0"]
        replica.suspended = True
        w.proxy.refresh(replica)
        waiting = []
        for name, caller, priority in [
            ("a1", "a", "0"),
            ("a2", "a", "0"),
            ("a3", "a", "0"),
            ("b1", "b", "0"),
            ("u1", "c", "-1"),
        ]:
            body = b'{"messages":[{"content":"%b"}]}' % name.encode()
            extra = f"x-halffull-caller: {caller}\r\nx-halffull-priority: {priority}\r\n".encode()
            waiting.append(asyncio.create_task(w.post(body, extra=extra)))
            await until(lambda: len(w.proxy.dispatcher.queue) == len(waiting))
        replica.suspended = False
        w.proxy.refresh(replica)
        assert {(await answer)[0] for answer in waiting} == {200}
        assert order == [b"u1", b"a1", b"b1", b"a2", b"a3"]


async def test_a_class_must_be_a_number() -> None:
    async with world(Engine(whole(PLAIN))) as w:
        status, headers, body = await w.post(CHAT % b"false", extra=b"x-halffull-priority: high\r\n")

        assert (status, headers["x-halffull-reason"]) == (400, "bad_request")
        assert b"x-halffull-priority" in body
