"""Ends of streams that come in odd pieces, twice, or only in part."""

import pytest

from halffull.core.limits import Limits
from halffull.router.http.framing import LAST_CHUNK, chunk
from halffull.router.observability.telemetry import Ended
from in_memory import World

STARTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"c","created":1,"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
STOP = b'data: {"id":"c","created":1,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
PLAIN = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}'
TOOLS = b'{"model":"m","stream":true,"tools":[],"messages":[{"role":"user","content":"x"}]}'
"""not continued: its bytes are passed on as they come"""


def post(body: bytes) -> bytes:
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def unchunked(answer: bytes) -> bytes:
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest != LAST_CHUNK:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("body", [PLAIN, TOOLS], ids=["continued", "passed on"])
async def test_the_end_may_come_in_any_pieces(body: bytes) -> None:
    world = World(STARTS + chunk(EVENT % b"one" + EVENT % b"two" + STOP + DONE) + LAST_CHUNK)
    world.engine.pieces = lambda answer: [answer[n : n + 1] for n in range(len(answer))]
    answer = await world.send(post(body))

    assert unchunked(answer) == EVENT % b"one" + EVENT % b"two" + STOP + DONE
    assert not world.leaks()


@pytest.mark.parametrize("body", [PLAIN, TOOLS], ids=["continued", "passed on"])
async def test_a_stream_that_breaks_behind_its_end_is_complete(body: bytes) -> None:
    world = World(STARTS + chunk(EVENT % b"one" + STOP + DONE), limits=Limits(attempts=1))
    client, transport = world.connect()
    client.data_received(post(body))
    await world.settle(1)
    world.engine.connections[0][1].close()
    await world.settle()

    answer = b"".join(transport.written)
    assert answer.count(DONE) == 1
    assert b'"error"' not in answer
    assert answer.endswith(LAST_CHUNK)
    assert world.proxy.telemetry.completed == 1
    assert not world.proxy.telemetry.failures


@pytest.mark.parametrize("text", [b"it ends with data: [DONE]", b"[DONE]\\n\\n"])
async def test_a_text_about_the_end_of_streams_is_not_one(text: bytes) -> None:
    world = World(STARTS + chunk(EVENT % text), limits=Limits(attempts=1))
    client, transport = world.connect()
    client.data_received(post(TOOLS))
    await world.settle(1)
    world.engine.connections[0][1].close()
    await world.settle()

    assert b'"error"' in b"".join(transport.written)
    assert sum(world.proxy.telemetry.failures.values()) == 1


async def test_a_stream_that_nobody_continues_is_told_of_with_the_status_that_its_client_got() -> None:
    world = World(STARTS + chunk(EVENT % b"one"), limits=Limits(attempts=1))
    ends: list[Ended] = []
    world.proxy.witnesses.append(ends.append)
    client, transport = world.connect()
    client.data_received(post(PLAIN))
    await world.settle(1)
    world.engine.connections[0][1].close()
    await world.settle()

    assert b'"error"' in b"".join(transport.written)
    assert [(ended.status, ended.reason) for ended in ends] == [(200, "engine_broken")]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            b"/v1/messages",
            b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n',
        ),
        (b"/v1/responses", b'event: response.output_text.delta\ndata: {"delta":"hi"}\n\n'),
    ],
)
async def test_an_engines_error_event_ends_a_stream_and_says_nothing_of_the_replica(path: bytes, said: bytes) -> None:
    error = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"boom"}}\n\n'
    world = World(STARTS + chunk(said) + chunk(error) + LAST_CHUNK)
    answer = await world.send(post(PLAIN).replace(b"/v1/chat/completions", path))

    assert unchunked(answer) == said + error
    assert world.replica.health.failures == 0
