"""Bodies that are no JSON, no UTF-8 or nested too deeply: refused with a reason, or left to others, never raised."""

import pytest

from halffull.core.errors import Failure, Reason
from halffull.core.limits import Limits
from halffull.engines.base import Dialect
from halffull.orderings.catalog import ORDERINGS
from halffull.router import asked
from halffull.router.answers import dialect
from halffull.router.http.framing import chunk
from halffull.router.observability.telemetry import Ended
from halffull.router.requests import prompt
from in_memory import World

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}x",
        b"\xef\xbb\xbf{}",
        b'{"prompt":"\xbb"}',
        b'{"model":"\xff"}',
        b'{"messages":[{"content":[{"text":"\xbb"}]}]}',
        b'{"prompt":["\xbb"]}',
        b'{"model":1,"stream":"\xbb"}',
        b'{"input":%b}' % DEEP,
        b'{"x":%b}' % DEEP,
    ],
)
def test_requests(body: bytes) -> None:
    found = prompt.read(body)
    assert isinstance(found, Failure)
    assert found.reason is Reason.INVALID_BODY
    assert not any(prompt.texts(body))


async def test_a_body_that_cannot_be_read_is_refused_while_requests_are_recorded() -> None:
    told: list[Ended] = []
    world = World()
    world.proxy.recording = True
    world.proxy.witnesses.append(told.append)
    answer = await world.send(post(b'{"prompt":"\xbb"}'))

    assert answer.startswith(b"HTTP/1.1 400")
    assert [ended.reason for ended in told] == ["invalid_body"]


def test_a_field_that_is_not_utf8_does_not_lose_an_alias() -> None:
    body = b'{"\xff":1,"model":"alias"}'
    assert isinstance(prompt.read(body), prompt.Prompt)
    assert prompt.with_model(body, "m") == body


@pytest.mark.parametrize(
    "data", [b'{"choices":"\xbb"}', b'{"id":"\xbb","usage":1}', b'{"choices":%b}' % DEEP, b'{"usage":{"x":%b}}' % DEEP]
)
def test_answers(data: bytes) -> None:
    assert dialect.meaning(Dialect.OPENAI, b"data: " + data) is dialect.Event.STARTED
    assert dialect.usage(data) == (None, None, None)
    assert dialect.stream_usage(b"data: " + data + b"\n\n") == (None, None)


@pytest.mark.parametrize("tokens", [b"-5000", b"1000000000000000000", b"1e400"])
async def test_counts_that_no_answer_has_teach_nothing(tokens: bytes) -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":%b,"completion_tokens":%b}}' % (tokens, tokens)
    world = World(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    before = world.proxy.tokens.ratio.value
    assert (await world.send(post(b'{"model":"m","messages":[{"role":"user","content":"x"}]}'))).endswith(body)

    assert world.proxy.tokens.ratio.value == before
    assert world.replica.freed_tokens in range(100)
    assert not world.leaks()


STREAMED = b'"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]'
STARTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def post(body: bytes) -> bytes:
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    "field", [b'"\xff":1', b'"stop":"\xff"', b'"stop":["\xff"]', b'"stop":5', b'"stop":true', b'"max_tokens":1e400']
)
async def test_a_field_that_only_going_on_elsewhere_would_need_is_the_engines_to_judge(field: bytes) -> None:
    world = World()
    body = b"{%b,%b}" % (STREAMED, field)
    answer = await world.send(post(body))

    assert answer.startswith(b"HTTP/1.1 200")
    assert not world.leaks()


@pytest.mark.parametrize("content", [b'"\xff"', b"5", b'["x"]', b"[" * 20_000 + b"]" * 20_000])
async def test_a_stream_whose_text_cannot_be_read_ends_with_an_error_where_its_replica_dies(content: bytes) -> None:
    said = b"".join(
        chunk(b'data: {"id":"c","created":1,"choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % text)
        for text in (b'"one"', b'"two"', content)
    )
    world = World(STARTS + said, limits=Limits(attempts=2))
    client, transport = world.connect()
    client.data_received(post(b"{%b}" % STREAMED))
    await world.settle(1)
    world.proxy.died(world.replica, "it hangs")

    assert b"engine_silent" in b"".join(transport.written)
    assert not world.proxy.passages


@pytest.mark.parametrize("limit", [10**400, -(10**400), 0, -1], ids=["huge", "far below zero", "zero", "below zero"])
async def test_a_limit_that_no_answer_reaches_stops_no_queue(limit: int) -> None:
    world = World()
    dispatcher = world.proxy.dispatcher
    dispatcher.configure(dispatcher.policy, ORDERINGS["srpt"].make(), dispatcher.gate, Limits(), world.now)
    world.replica.suspended = True
    world.proxy.refresh(world.replica)
    clients = [world.connect() for _ in range(2)]
    for (client, _), told in zip(clients, (limit, 5), strict=True):
        client.data_received(post(b"{%b,%b}" % (STREAMED, b'"max_tokens":%d' % told)))
    world.replica.suspended = False
    world.proxy.refresh(world.replica)
    await world.settle()

    assert [b"".join(transport.written)[:12] for _, transport in clients] == [b"HTTP/1.1 200"] * 2


async def test_a_fault_of_ours_is_answered_and_costs_no_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: bytes) -> None:
        raise KeyError("a bug")

    world = World()
    client, transport = world.connect()
    with monkeypatch.context() as broken:
        broken.setattr(asked.prompt, "read", fail)
        client.data_received(post(b"{%b}" % STREAMED))
    client.data_received(post(b"{%b}" % STREAMED))
    await world.settle()

    first, second = b"".join(transport.written).split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"500")
    assert b"x-halffull-reason: internal" in first
    assert second.startswith(b"200")
    assert "a bug" in caplog.text
