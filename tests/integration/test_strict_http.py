"""Limits and manners of the data path between real sockets: slow, greedy, half-closed, refused and pipelining clients;
engines that answer early, flood, or are used again after a pause.

Framing itself is in tests/unit/router/test_smuggling.py and tests/property/test_framing.py.
"""

import asyncio
import contextlib

import pytest

from halffull.router.http.client import AHEAD_BYTES, ClientLimits
from scripted_engines import (
    CHAT,
    DONE,
    PLAIN,
    ROLE,
    TOKEN,
    Engine,
    World,
    hang,
    parse,
    post,
    reset,
    start_then_hang,
    stream,
    until,
    whole,
    world,
)

MODELS = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"


async def insist(w: World, head: bytes, piece: bytes, times: int) -> bytes:
    """Send without looking, as long as the router takes it; then read the answer."""
    reader, writer = await w.connect()
    writer.write(head)
    with contextlib.suppress(ConnectionError):
        for _ in range(times):
            writer.write(piece)
            await writer.drain()
    return await asyncio.wait_for(reader.read(), 20)


@pytest.mark.parametrize(
    ("head", "piece", "status"),
    [
        (b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 60000000\r\n\r\n", b"x" * 60_000, 413),
        (
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
            b"ea60\r\n" + b"x" * 60_000 + b"\r\n",
            413,
        ),
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: ", b"y" * 60_000, 431),
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n", b"x: y\r\n" * 10_000, 431),
        (b"GET  /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", b"x" * 60_000, 400),
        (b"POST /sleep HTTP/1.1\r\nhost: x\r\ncontent-length: 60000000\r\n\r\n", b"x" * 60_000, 403),
    ],
    ids=["length", "chunks", "one header", "many headers", "ambiguous", "not routed"],
)
async def test_a_client_that_goes_on_sending_gets_to_read_why_it_is_refused(
    head: bytes, piece: bytes, status: int
) -> None:
    async with world(Engine(whole(PLAIN)), clients=ClientLimits(body_bytes=1_000_000, head_bytes=8192)) as w:
        for _ in range(5):
            assert parse(await insist(w, head, piece, 200))[0] == status


async def test_connections_are_limited() -> None:
    async with world(Engine(whole(PLAIN)), clients=ClientLimits(connections=3)) as w:
        first = [await w.connect() for _ in range(3)]
        await until(lambda: len(w.proxy.clients) == 3)
        reader, writer = await w.connect()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        for reader, writer in first:
            writer.write(MODELS)
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).startswith(b"HTTP/1.1 200")
        first[0][1].close()
        await until(lambda: len(w.proxy.clients) == 2)
        assert (await w.post(CHAT % b"false"))[0] == 200


async def test_a_half_closed_client_has_left() -> None:
    engine = Engine(hang)
    async with world(engine) as w:
        reader, writer = await w.connect()
        writer.write(post(CHAT % b"true"))
        await until(lambda: bool(engine.requests))
        writer.write_eof()
        await until(lambda: engine.closed == 1)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        assert w.proxy.telemetry.cancelled == 1


async def test_a_half_closed_client_that_does_not_read_is_let_go() -> None:
    """Its last bytes cannot be delivered, so closing waits for them: the engine must not."""

    async def flood(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stream(ROLE, TOKEN, end=None)(request, reader, writer)
        event = b"data: " + b"z" * 65536 + b"\n\n"
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()

    engine = Engine(flood)
    async with world(engine) as w:
        _, writer = await w.connect()
        writer.transport.pause_reading()
        writer.write(post(CHAT % b"true"))
        await until(lambda: any(client.paused for client in w.proxy.clients))
        writer.write_eof()
        await until(lambda: engine.closed == 1)
        assert not w.proxy.passages
        writer.transport.abort()


async def test_a_client_that_pipelines_far_ahead_has_to_wait() -> None:
    gap = asyncio.Event()
    engine = Engine(stream(ROLE, TOKEN, TOKEN, DONE, gap=gap), whole(PLAIN))
    async with world(engine) as w:
        reader, writer = await w.connect()
        writer.write(post(CHAT % b"true"))
        await until(lambda: bool(engine.requests))
        (client,) = w.proxy.clients
        writer.write(MODELS * 200_000)  # 8 MB
        await until(lambda: client._held)
        assert len(client._unread) < AHEAD_BYTES + (256 << 10)
        assert len(engine.requests) == 1
        gap.set()
        head = await asyncio.wait_for(reader.readuntil(DONE), 20)
        assert head.startswith(b"HTTP/1.1 200")
        got = 0
        while got < 1000:
            got += (await asyncio.wait_for(reader.read(1 << 16), 20)).count(b"HTTP/1.1 200 OK")
        writer.transport.abort()


async def test_answers_to_pipelined_requests_do_not_pile_up() -> None:
    """The client reads nothing: the next request is not even begun."""
    engine = Engine(whole(b'{"x":"' + b"y" * 300_000 + b'"}'))
    async with world(engine) as w:
        _, writer = await w.connect()
        writer.transport.pause_reading()
        writer.write(post(CHAT % b"false") * 200)
        before = -1
        while before != len(engine.requests) or not before:
            before = len(engine.requests)
            await asyncio.sleep(0.3)
        assert before < 60
        (client,) = w.proxy.clients
        assert client._transport is not None
        assert client._transport.get_write_buffer_size() < 1 << 20
        writer.transport.abort()


async def test_a_stalled_client_is_dropped_after_its_last_answer() -> None:
    engine = Engine(whole(b'{"x":"' + b"y" * 20_000_000 + b'"}'))
    async with world(engine, clients=ClientLimits(idle_s=0.2)) as w:
        _, writer = await w.connect()
        writer.transport.pause_reading()
        writer.write(post(CHAT % b"false"))
        await until(lambda: bool(w.proxy.clients))
        (client,) = w.proxy.clients
        await until(lambda: client.paused)
        writer.transport.abort()
        await until(lambda: not w.proxy.clients)


async def test_each_part_of_a_request_has_its_time() -> None:
    limits = ClientLimits(head_s=0.2, body_s=0.2, idle_s=0.2)
    async with world(Engine(whole(PLAIN)), clients=limits) as w:
        assert await w.raw(b"") == b""
        assert await w.raw(b"\r\n") == b""
        assert parse(await w.raw(b"GET /v1/mod"))[0] == 408
        assert parse(await w.raw(post(CHAT % b"false")[:-5]))[0] == 408
        kept = await w.raw(MODELS)
        assert kept.startswith(b"HTTP/1.1 200")
        assert b"connection: close" not in kept
        late = await w.raw(MODELS + b"GET /v1/mod")
        assert [part[:3] for part in late.split(b"HTTP/1.1 ")[1:]] == [b"200", b"408"]


async def test_empty_lines_do_not_keep_a_connection() -> None:
    """Cut so that the beginning of one is always there, which could begin a head."""
    async with world(Engine(whole(PLAIN)), clients=ClientLimits(head_s=0.3, idle_s=0.3)) as w:
        reader, writer = await w.connect()

        async def drip() -> None:
            writer.write(b"\r")
            while True:
                await asyncio.sleep(0.1)
                writer.write(b"\n\r")

        dripping = asyncio.create_task(drip())
        assert b"408" in await asyncio.wait_for(reader.read(), 10)
        dripping.cancel()


@pytest.mark.parametrize("flood", [b"x: " + b"y" * 1000, b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["head", "1xx"])
async def test_an_engine_that_floods_is_cut_off(flood: bytes) -> None:
    sent = 0

    async def answer(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"" if flood.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            writer.write(flood)
            await writer.drain()
            sent += len(flood)

    async with world(Engine(answer)) as w:
        status, headers, _ = await w.post(CHAT % b"false")
        assert (status, headers["x-halffull-reason"]) == (502, "engine_broken")
    assert sent < 64 << 20


async def test_an_engine_that_answers_before_it_has_the_request() -> None:
    """The answer counts; the connection, on which the rest of the request is still to go, is not used again."""

    class Early(Engine):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.tasks.append(asyncio.current_task())
            await reader.readuntil(b"\r\n\r\n")
            self.requests.append(b"")
            await whole(b'{"error":"no"}', b"400 Bad Request")(b"", reader, writer)
            try:
                await asyncio.Event().wait()
            finally:
                writer.close()

    engine = Early(whole(PLAIN))
    async with world(engine) as w:
        body = b'{"model":"m","messages":[],"x":"' + b"y" * 20_000_000 + b'"}'
        for number in range(2):
            status, _, answer = await w.post(body)
            assert (status, answer) == (400, b'{"error":"no"}')
            assert len(engine.requests) == number + 1


async def test_a_connection_that_was_held_back_is_used_again() -> None:
    """Reading from the engine was paused for a slow client when the answer ended."""
    engine = Engine(whole(b'{"x":"' + b"y" * 20_000_000 + b'"}'), whole(PLAIN))
    async with world(engine) as w:
        reader, writer = await w.connect()
        writer.transport.pause_reading()
        writer.write(post(CHAT % b"false", extra=b"connection: close\r\n"))
        await until(lambda: any(client.paused for client in w.proxy.clients))
        writer.transport.resume_reading()
        assert parse(await reader.read())[0] == 200
        for _ in range(3):
            assert (await asyncio.wait_for(w.post(CHAT % b"false"), 20))[2] == PLAIN


async def test_a_resting_connection_closed_by_the_next_engine_costs_nothing_either() -> None:
    refusal = whole(b'{"error":{"code":503}}', b"503 Service Unavailable")
    first, second = Engine(whole(PLAIN), reset, refusal), Engine(whole(PLAIN), reset, whole(PLAIN))
    async with world(first, second) as w:
        for _ in range(3):
            assert (await w.post(CHAT % b"false"))[0] == 200

        assert (len(first.requests), len(second.requests)) == (3, 3)
        assert [replica.health.failures for replica in w.proxy.dispatcher.books.replicas.values()] == [0, 0]


async def test_a_head_request_gets_no_body() -> None:
    async with world(Engine(whole(PLAIN))) as w:
        got = await w.raw(b"HEAD /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        head, _, body = got.partition(b"\r\n\r\n")
        assert body == b""
        assert b"content-length: " in head
        assert b"content-length: 0" not in head


async def test_no_body_is_waited_for_that_is_refused_by_its_head() -> None:
    async with world(Engine(whole(PLAIN))) as w:
        reader, writer = await w.connect()
        writer.write(b"POST /sleep HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).startswith(b"HTTP/1.1 403")
        writer.close()


async def test_a_refusal_without_a_body_costs_no_connection() -> None:
    async with world(Engine(whole(PLAIN))) as w:
        got = await w.raw(
            b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n" + MODELS.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        )
        assert [part[:3] for part in got.split(b"HTTP/1.1 ")[1:]] == [b"404", b"200"]


@pytest.mark.parametrize(
    ("request_line", "allow"),
    [
        (b"GET /v1/completions", "POST"),
        (b"DELETE /v1/models", "GET, HEAD"),
        (b"PUT /v1/responses/r", "DELETE, GET, POST"),
    ],
)
async def test_another_method_is_told_which_are_right(request_line: bytes, allow: str) -> None:
    async with world(Engine(whole(PLAIN))) as w:
        status, headers, _ = parse(await w.raw(request_line + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        assert (status, headers["allow"]) == (405, allow)


async def test_what_an_engine_gets_is_written_anew() -> None:
    engine = Engine(whole(PLAIN))
    extra = (
        b"connection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nte: trailers\r\nproxy-connection: x\r\nupgrade: h2c\r\n"
        b"x-kept: \xe4\r\ncookie: a=b\r\ncookie: c=d\r\naccept-encoding: gzip\r\n"
    )
    request = post(CHAT % b"false", extra=extra).replace(b"POST /v1", b"POST http://router/v1")
    async with world(engine) as w:
        assert parse(await w.raw(request))[0] == 200
    head = engine.requests[0].partition(b"\r\n\r\n")[0]
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert sorted(line.split(b":")[0] for line in lines[1:]) == sorted(
        [b"host", b"content-type", b"x-kept", b"cookie", b"cookie", b"x-request-id", b"content-length"]
    )


async def test_a_client_that_leaves_while_it_streams_and_pipelines_frees_the_engine() -> None:
    engine = Engine(start_then_hang)
    async with world(engine) as w:
        reader, writer = await w.connect()
        writer.write(post(CHAT % b"true") + MODELS)
        await asyncio.wait_for(reader.readuntil(TOKEN[-6:]), 20)
        writer.close()
        await until(lambda: engine.closed == 1)
