"""Moments in the life of connections that sockets do not bring about on order."""

import asyncio

import httptools
import pytest

from halffull.core.health import Verdict
from halffull.core.limits import Limits
from halffull.router.http.client import ClientLimits
from halffull.router.http.framing import Headers, chunk
from halffull.router.http.upstream import MAX_HEAD_BYTES, Pool, Upstream
from in_memory import ANSWER, Transport, World

ASK = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


class Reader:
    """Hears of an answer."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def answer_head(self, status: int, headers: Headers, fields: dict[bytes, bytes]) -> None:
        self.heard.append(status)

    def answer_data(self, data: bytes) -> None:
        self.heard.append(data)

    def answer_end(self) -> None:
        self.heard.append("end")

    def answer_lost(self, reason: str, *, reused: bool) -> None:
        self.heard.append(("lost", reused))


def upstream() -> tuple[Upstream, Transport, Pool]:
    pool = Pool("h", 1, lambda: 0.0)
    made = Upstream(pool, lambda: 0.0)
    transport = Transport(made.connection_lost)
    made.connection_made(transport)
    return made, transport, pool


async def test_an_engines_connection_that_was_paused_reads_again_when_it_rests() -> None:
    made, transport, pool = upstream()
    made.request(Reader(), b"", b"")
    made.pause()
    assert not transport.reading
    made.data_received(ANSWER)
    assert transport.reading
    assert pool.take() is made


async def test_a_lost_connection_tells_whether_it_had_served_and_was_silent() -> None:
    for served, came, reused in (
        (False, b"", False),
        (True, b"", True),
        (True, b"HTTP", False),
        (False, b"HTTP", False),
    ):
        made, _, _ = upstream()
        if served:
            made.request(Reader(), b"", b"")
            made.data_received(ANSWER)
        reader = Reader()
        made.request(reader, b"", b"")
        if came:
            made.data_received(came)
        made.connection_lost(None)
        assert reader.heard == [("lost", reused)]


async def test_framing_of_an_answer_is_bounded_and_its_body_is_not() -> None:
    made, transport, _ = upstream()
    reader = Reader()
    made.request(reader, b"", b"")
    made.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(200):
        made.data_received(b"400\r\n" + b"x" * 1024 + b"\r\n")
    assert ("lost", False) not in reader.heard
    made.data_received(b"0\r\n")
    for _ in range(MAX_HEAD_BYTES // 1000 + 1):
        made.data_received(b"x: " + b"y" * 995 + b"\r\n")
    assert reader.heard[-1] == ("lost", False)
    assert transport.closed


async def test_a_fault_of_ours_is_not_blamed_on_the_engine() -> None:
    class Broken(Reader):
        def answer_data(self, data: bytes) -> None:
            raise KeyError

    made, _, _ = upstream()
    made.request(Broken(), b"", b"")
    with pytest.raises(KeyError):
        made.data_received(ANSWER)


def test_what_the_parser_makes_of_our_exceptions() -> None:
    assert issubclass(httptools.HttpParserCallbackError, httptools.HttpParserError)


async def test_a_client_that_does_not_read_gets_no_further_answer() -> None:
    world = World()
    client, transport = world.connect()
    client.data_received(MODELS)
    assert len(transport.written) == 1
    client.pause_writing()
    client.data_received(MODELS)
    client.data_received(MODELS)
    await world.settle()
    assert len(transport.written) == 1
    client.resume_writing()
    await world.settle()
    assert len(transport.written) == 3


async def test_what_comes_between_an_answer_and_the_next_request_is_read_in_order() -> None:
    world = World()
    client, transport = world.connect()
    client.data_received(MODELS + MODELS + MODELS[:20])
    client.data_received(MODELS[20:] + MODELS)  # before the loop had a turn
    await world.settle()
    assert b"".join(transport.written).count(b"HTTP/1.1 200 OK") == 4


async def test_a_client_that_stops_reading_its_last_answer_is_dropped_in_the_end() -> None:
    world = World(clients=ClientLimits(idle_s=5))
    client, transport = world.connect()
    client.data_received(MODELS)
    client.pause_writing()
    world.now += 6
    client.expired()
    assert transport.closed
    assert client.deadline > world.now


async def test_a_client_is_busy_until_it_has_its_answer() -> None:
    world = World()
    client, transport = world.connect()
    assert not client.busy
    client.data_received(MODELS[:9])
    assert client.busy
    client.data_received(MODELS[9:])
    await world.settle()
    assert not client.busy
    transport.unsent = 1
    assert client.busy
    client.close()
    await world.settle()
    assert not client.busy


async def test_a_refused_client_is_listened_to_a_little_longer() -> None:
    world = World()
    client, transport = world.connect()
    client.data_received(b"garbage\r\n\r\n")
    assert transport.half_closed
    for _ in range(100):
        client.data_received(b"x" * 1000)
        assert not transport.closed
        world.now += 1
        if client.deadline <= world.now:
            break
    client.expired()
    assert transport.closed
    assert 25 < world.now < 35
    await asyncio.sleep(0)


async def test_an_engines_early_answer_ends_its_connection_only_if_the_request_is_not_sent() -> None:
    for unsent, kept in ((0, True), (1000, False)):
        made, transport, pool = upstream()
        transport.get_write_buffer_size = lambda unsent=unsent: unsent  # type: ignore[method-assign]
        made.request(Reader(), b"", b"x" * 100_000)
        made.data_received(ANSWER)
        assert (pool.take() is made) == kept
        assert transport.closed != kept


async def test_bytes_that_nobody_asked_for_end_a_resting_connection() -> None:
    made, transport, pool = upstream()
    made.request(Reader(), b"", ASK)
    made.data_received(ANSWER)
    made.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert transport.closed
    assert pool.take() is None


async def test_a_stream_that_goes_on_elsewhere_waits_for_its_client_there_too() -> None:
    event = b'data: {"id":"c","created":1,"choices":[{"index":0,"delta":{"content":"one"}}]}\n\n'
    begun = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(event)
    world = World(begun, limits=Limits(attempts=2))
    client, _ = world.connect()
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}'
    client.data_received(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    await world.settle(1)
    client.pause_writing()
    world.proxy.died(world.replica, "it hangs")
    await world.settle(1)

    (_, before), (_, after) = world.engine.connections
    assert before.closed
    assert not after.reading
    client.resume_writing()
    assert after.reading
    client.connection_lost(None)
    await world.settle()
    assert not world.leaks()


async def test_a_body_is_json_whatever_the_case_of_its_media_type() -> None:
    world = World()
    body = b'{"model":"another"}'
    answer = await world.send(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: Application/JSON\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    assert b"unknown_model" in answer
    assert not world.requests()


@pytest.mark.parametrize("reads", [True, False])
async def test_an_engine_is_not_silent_where_it_is_the_client_that_does_not_read(*, reads: bool) -> None:
    said = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    world = World(head + chunk(said))
    client, transport = world.connect()
    client.data_received(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n" + b'{"stream":true}')
    await world.settle(1)
    if not reads:
        client.pause_writing()
    await world.settle(100)
    assert world.replica.health.verdict is (Verdict.SUSPECT if reads else Verdict.WELL)
    if not reads:
        client.resume_writing()
        await world.settle(100)
        assert world.replica.health.verdict is Verdict.SUSPECT
    transport.close()
    await world.settle()
    assert world.replica.held_back == 0
