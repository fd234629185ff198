"""The data path between real sockets: what clients send, what scripted engines answer, and what each side then sees.

Covers relaying, holding back of opening events, moving what has not started, faults after the start, errors in each API's
form, framing, pipelining, queue limits, clients that go away or read slowly.
"""

import asyncio
import json

import pytest

from halffull.core.books import Replica
from halffull.core.limits import Limits
from halffull.router.http.client import ClientLimits
from scripted_engines import (
    ABORT,
    BUSY,
    CHAT,
    DONE,
    PLAIN,
    ROLE,
    TOKEN,
    Answer,
    Engine,
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


async def test_a_plain_answer_is_relayed_with_our_headers() -> None:
    engine = Engine(whole(PLAIN, extra=b"x-engine: yes\r\nconnection: keep-alive\r\nkeep-alive: 5\r\n"))
    async with world(engine) as w:
        status, headers, body = await w.post(CHAT % b"false", extra=b"x-request-id: mine\r\nte: trailers\r\n")

        assert (status, body) == (200, PLAIN)
        assert headers["x-request-id"] == "mine"
        assert headers["x-halffull-replica"] == "r0"
        assert headers["x-engine"] == "yes"
        assert "keep-alive" not in headers
        sent = engine.requests[0].lower()
        assert sent.count(b"content-length") == 1
        assert b"x-request-id: mine" in sent
        assert b"te: trailers" not in sent
        assert b"connection" not in sent
        assert w.proxy.tokens.ratio.evidence == 1


async def test_a_stream_is_relayed_to_the_byte_and_its_opening_is_held_back() -> None:
    gap = asyncio.Event()
    engine = Engine(stream(ROLE, ROLE, TOKEN, TOKEN, DONE, gap=gap))
    async with world(engine) as w:
        reader, writer = await w.connect()
        writer.write(post(CHAT % b"true", extra=b"connection: close\r\n"))
        await until(lambda: bool(engine.requests))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        gap.set()
        _, headers, body = parse(await reader.read())

        assert body == ROLE + ROLE + TOKEN + TOKEN + DONE
        assert headers["content-type"].startswith("text/event-stream")
        assert len(w.proxy.telemetry.of("r0").recent_ttft) == 1
        writer.close()


@pytest.mark.parametrize(
    "refusal",
    [
        whole(b'{"error":{"code":503}}', b"503 Service Unavailable"),
        whole(b'{"error":{"code":429}}', b"429 Too Many Requests"),
        stream(BUSY, DONE),
        stream(ROLE, ABORT, DONE),
        stream(ROLE, end=False),
        stream(ROLE),
        reset,
    ],
    ids=["503", "429", "busy-in-stream", "abort", "cut", "ended-early", "reset"],
)
@pytest.mark.parametrize("streamed", [b"true", b"false"])
async def test_what_has_not_started_is_tried_elsewhere(refusal: Answer, streamed: bytes) -> None:
    good = stream(ROLE, TOKEN, DONE) if streamed == b"true" else whole(PLAIN)
    async with world(Engine(refusal), Engine(good)) as w:
        for _ in range(2):
            status, headers, _ = await w.post(CHAT % streamed)
            assert (status, headers["x-halffull-replica"]) == (200, "r1")
        assert sum(w.proxy.telemetry.moves.values()) >= 1


async def test_an_unreachable_engine_is_passed_over() -> None:
    async with world(Engine(whole(PLAIN))) as w:
        probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = probe.sockets[0].getsockname()[1]
        probe.close()
        w.proxy.add(Replica("gone", "127.0.0.1", port))
        answers = [await w.post(CHAT % b"false") for _ in range(4)]

        assert [status for status, _, _ in answers] == [200] * 4
        assert {headers["x-halffull-replica"] for _, headers, _ in answers} == {"r0"}


async def test_attempts_are_bounded() -> None:
    busy = Engine(whole(b"{}", b"503 Service Unavailable"))
    async with world(busy, limits=Limits(attempts=2)) as w:
        status, headers, body = await w.post(CHAT % b"false")

        assert (status, headers["x-halffull-reason"]) == (503, "engine_busy")
        assert int(headers["retry-after"]) >= 1
        assert json.loads(body)["error"]["code"] == "engine_busy"
        assert len(busy.requests) == 2


@pytest.mark.parametrize("events", [(ROLE, TOKEN, TOKEN), (ROLE, TOKEN)])
@pytest.mark.parametrize("end", [True, False], ids=["framed", "closed"])
async def test_a_started_stream_never_ends_silently(events: tuple[bytes, ...], end: bool) -> None:
    async with world(Engine(stream(*events, end=end))) as w:
        status, _, body = await w.post(CHAT % b"true")

        assert status == 200
        assert body.startswith(b"".join(events))
        assert b'"code":"engine_broken"' in body
        assert body.endswith(DONE)
        assert w.proxy.telemetry.failures["engine_broken"] == 1


@pytest.mark.parametrize("answer", [hang, start_then_hang], ids=["waiting", "streaming"])
async def test_a_client_that_goes_away_frees_the_engine(answer: Answer) -> None:
    engine = Engine(answer)
    async with world(engine) as w:
        _, writer = await w.connect()
        writer.write(post(CHAT % b"true"))
        await until(lambda: bool(engine.requests))
        writer.transport.abort()
        await until(lambda: engine.closed == 1)
        assert w.proxy.telemetry.cancelled == 1
        assert not w.proxy.passages


async def test_a_resting_connection_closed_by_the_engine_costs_nothing() -> None:
    async def answer_then_close(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await whole(PLAIN)(request, reader, writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    engine = Engine(answer_then_close, whole(PLAIN))
    async with world(engine) as w:
        assert (await w.post(CHAT % b"false"))[0] == 200
        assert (await w.post(CHAT % b"false"))[0] == 200
        assert not w.proxy.telemetry.moves


async def test_an_answer_without_length_ends_with_its_connection() -> None:
    async def until_close(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + PLAIN)
        writer.close()

    async with world(Engine(until_close)) as w:
        assert (await w.post(CHAT % b"false"))[2] == PLAIN


async def test_informational_answers_and_bytes_after_the_end_do_not_reach_clients() -> None:
    async def odd(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n"
        )

    async with world(Engine(odd)) as w:
        for _ in range(2):
            status, headers, body = await w.post(CHAT % b"false")
            assert (status, body) == (200, b"{}")
            assert "link" not in headers


async def test_trailers_of_an_answer_do_not_become_headers_of_the_next() -> None:
    async def trailed(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"2\r\n{}\r\n0\r\nset-cookie: of=another\r\nx-checksum: 1\r\n\r\n")

    engine = Engine(trailed, whole(PLAIN))
    async with world(engine) as w:
        for expected in (b"{}", PLAIN):
            _, headers, body = await w.post(CHAT % b"false")
            assert body == expected
            assert not headers.keys() & {"set-cookie", "x-checksum"}
        assert len(engine.tasks) == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/sleep", b"{}", 403, "admin_path"),
        ("/v1/load_lora_adapter", b"{}", 403, "admin_path"),
        ("/metrics", b"{}", 404, "unknown_path"),
        ("/v1/chat/completions", b"{", 400, "invalid_body"),
        ("/v1/chat/completions", b"[]", 400, "invalid_body"),
        ("/v1/chat/completions", b'{"model":"other","messages":[]}', 404, "unknown_model"),
        ("/v1/messages", b'{"model":"other","messages":[]}', 404, "unknown_model"),
        ("/v1/models", b"{}", 405, "method_not_allowed"),
    ],
)
async def test_errors_name_their_reason(path: str, body: bytes, status: int, reason: str) -> None:
    engine = Engine(whole(PLAIN))
    async with world(engine) as w:
        got, headers, answer = await w.post(body, path)

        assert (got, headers["x-halffull-reason"]) == (status, reason)
        document = json.loads(answer)
        assert document["error"]["message"]
        assert document.get("type") == ("error" if path == "/v1/messages" else None)
        assert not engine.requests


async def test_models_are_listed_and_aliases_are_rewritten() -> None:
    engine = Engine(whole(PLAIN))
    async with world(engine) as w:
        w.proxy.dispatcher.books.replicas["r0"].models = ("m", "adapter", "org/lora")
        listed = parse(await w.raw(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        one = parse(await w.raw(b"GET /v1/models/adapter HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        for path in (b"org/lora", b"org%2Flora"):
            got = await w.raw(b"GET /v1/models/%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path)
            assert json.loads(parse(got)[2])["id"] == "org/lora"
        none = parse(await w.raw(b"GET /v1/models/nope HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
        aliased = await w.post(b'{"model": "alias", "seed": 1.50, "messages": []}')

        assert [row["id"] for row in json.loads(listed[2])["data"]] == ["adapter", "alias", "m", "org/lora"]
        assert json.loads(one[2])["id"] == "adapter"
        assert none[0] == 404
        assert aliased[0] == 200
        assert engine.requests[0].endswith(b'{"model":"m","seed":1.50,"messages":[]}')


async def test_pipelined_requests_are_answered_in_order() -> None:
    engine = Engine(stream(ROLE, TOKEN, DONE), whole(PLAIN), whole(b'{"third":1}'))
    async with world(engine) as w:
        requests = post(CHAT % b"true") + post(CHAT % b"false") + post(CHAT % b"false", extra=b"connection: close\r\n")
        got = await w.raw(requests)

        assert got.count(b"HTTP/1.1 200 OK") == 3
        assert got.index(DONE) < got.index(PLAIN) < got.index(b'{"third":1}')


async def test_chunked_requests_get_one_length() -> None:
    engine = Engine(whole(PLAIN))
    body = CHAT % b"false"
    chunks = b"%x;ext=1\r\n%b\r\n%x\r\n%b\r\n0\r\ntrailer: x\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
    async with world(engine) as w:
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        )
        assert parse(await w.raw(head + chunks))[0] == 200
        assert engine.requests[0].endswith(b"content-length: %d\r\n\r\n%b" % (len(body), body))


async def test_expect_continue() -> None:
    async with world(Engine(whole(PLAIN))) as w:
        reader, writer = await w.connect()
        whole_request = post(CHAT % b"false", extra=b"expect: 100-continue\r\nconnection: close\r\n")
        head, body = whole_request.split(b"\r\n\r\n", 1)
        writer.write(head + b"\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert parse(await reader.read())[0] == 200
        writer.close()


async def test_an_old_client_gets_a_stream_that_ends_by_close() -> None:
    async with world(Engine(stream(ROLE, TOKEN, DONE))) as w:
        got = await w.raw(post(CHAT % b"true").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        head, _, body = got.partition(b"\r\n\r\n")

        assert b"transfer-encoding" not in head
        assert body == ROLE + TOKEN + DONE


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET http://other/v1/models HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (b"GET /v1/models HTTP/2.0\r\nhost: a\r\n\r\n", 400),
        (
            b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
        (b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer_encoding: chunked\r\ncontent-length: 0\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nexpect: tea\r\ncontent-length: 2\r\n\r\n{}", 417),
        (b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 99999\r\n\r\n", 413),
        (b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 5000 + b"\r\n\r\n", 431),
        (b"garbage\r\n\r\n", 400),
    ],
)
async def test_what_is_ambiguous_or_too_large_is_refused_and_closed(request_bytes: bytes, status: int) -> None:
    engine = Engine(whole(PLAIN))
    async with world(engine, clients=ClientLimits(head_bytes=4096, body_bytes=1000)) as w:
        assert parse(await w.raw(request_bytes))[0] == status
        assert not engine.requests


async def test_a_slow_client_is_timed_out() -> None:
    async with world(Engine(whole(PLAIN)), clients=ClientLimits(head_s=0.1, body_s=0.1, idle_s=0.1)) as w:
        assert parse(await w.raw(b"GET /v1/mod"))[0] == 408
        assert parse(await w.raw(post(CHAT % b"false")[:-5]))[0] == 408
        assert await w.raw(b"") == b""


async def test_a_client_that_does_not_read_holds_the_engine_back() -> None:
    sent = 0

    async def flood(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        event = b"data: " + b"z" * 65536 + b"\n\n"
        for _ in range(4000):
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            sent += len(event)

    async with world(Engine(flood)) as w:
        reader, writer = await w.connect()
        writer.write(post(CHAT % b"true"))
        await reader.readexactly(1000)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 64 << 20
        writer.transport.abort()


async def test_the_end_of_each_request_is_told_once() -> None:
    engine = Engine(whole(PLAIN), stream(ROLE, TOKEN, DONE), stream(ROLE, TOKEN, end=False), hang)
    told: list[tuple[str, int, str, str]] = []
    async with world(engine) as w:
        w.proxy.witnesses.append(lambda e: told.append((e.path, e.status, e.reason, e.replica)))
        await w.post(CHAT % b"false")
        await w.post(CHAT % b"true")
        await w.post(CHAT % b"true")
        await w.post(b"{")
        _, writer = await w.connect()
        writer.write(post(CHAT % b"true"))
        await until(lambda: len(engine.requests) == 4)
        writer.transport.abort()
        await until(lambda: len(told) == 5)

    path = "/v1/chat/completions"
    assert told == [
        (path, 200, "", "r0"),
        (path, 200, "", "r0"),
        (path, 200, "engine_broken", "r0"),
        (path, 400, "invalid_body", ""),
        (path, 499, "", "r0"),
    ]


async def test_a_streamed_response_is_continued_where_it_was_made() -> None:
    made = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1"}}\n\n'
    text = b'event: response.output_text.delta\ndata: {"delta":"x"}\n\n'
    end = b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_1"}}\n\n'
    engines = [Engine(stream(made, text, end), whole(PLAIN)) for _ in range(4)]
    async with world(*engines) as w:
        body = b'{"model":"m","input":"hi","stream":true}'
        _, headers, _ = await w.post(body, "/v1/responses")
        home = headers["x-halffull-replica"]
        follow = b'{"model":"m","input":"hi","previous_response_id":"resp_1"}'
        assert {(await w.post(follow, "/v1/responses"))[1]["x-halffull-replica"] for _ in range(4)} == {home}


@pytest.mark.parametrize(
    ("request_line", "body"),
    [("GET /v1/responses/resp_1", b""), ("POST /v1/responses/resp_1/cancel", b""),
     ("POST /v1/responses/resp_1/cancel", b"{}"), ("GET /v1/responses/resp_1/input_items?limit=2", b"")],
)  # fmt: skip
async def test_what_is_asked_of_a_stored_response_goes_where_it_was_made(request_line: str, body: bytes) -> None:
    async with world(*[Engine(whole(PLAIN)) for _ in range(3)]) as w:
        w.proxy.remember("resp_1", "r2")
        for _ in range(3):
            method, _, target = request_line.partition(" ")
            asked = post(body, target, b"connection: close\r\n").replace(b"POST", method.encode(), 1)
            status, headers, _ = parse(await w.raw(asked))
            assert (status, headers["x-halffull-replica"]) == (200, "r2")
