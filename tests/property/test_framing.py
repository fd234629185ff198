"""What we read of a stream of requests, next to what another parser (h11) reads of it.

We are stricter than h11 in many places, never laxer, save that empty lines before a request are skipped (RFC 9112 section
2.2 asks for it; h11 refuses them). Both skip nothing else, so that what we accept is a prefix of what h11 accepts.
"""

import asyncio
import random
import re
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from halffull.core.errors import Failure
from halffull.router.http import framing, head
from halffull.router.http.client import Client, ClientLimits
from halffull.router.http.head import Head, Heads
from in_memory import Parsed, Transport, World, parse_body, parse_requests, parse_statuses
from streams import NASTY, REQUESTS, cut, mutated

ASK = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 1\r\n\r\nx"
EMPTY_LINES = re.compile(rb"(?:\r\n)*")


@dataclass
class Recorder:
    """A server that accepts everything and notes it."""

    limits: ClientLimits = field(default_factory=lambda: ClientLimits(body_bytes=10_000, head_bytes=8_000))
    closing: bool = False
    accepted: list[Parsed] = field(default_factory=list)
    refused: list[Failure] = field(default_factory=list)

    def opened(self, client: Client) -> bool:
        return True

    def closed(self, client: Client) -> None:
        pass

    def examine(self, head: Head) -> Failure | None:
        return None

    def handle(self, client: Client, head: Head, body: bytes) -> None:
        headers = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in head.headers]
        self.accepted.append((head.method, head.target, headers, body))  # h11 writes codings in lower case
        client.respond(200, (), b"")

    def refuse(self, client: Client, head: Head, failure: Failure) -> None:
        self.refused.append(failure)
        client.respond(failure.reason.status, (), b"")


def read(*pieces: bytes) -> Recorder:
    """What a client connection makes of these reads."""

    async def feed() -> Recorder:
        server = Recorder()
        client = Client(server, lambda: 0.0)
        client.connection_made(Transport(lambda _: None))
        for piece in pieces:
            client.data_received(piece)
        for _ in range(8):
            await asyncio.sleep(0)
        return server

    return asyncio.run(feed())


def origin(target: bytes) -> bytes:
    """The origin-form of a target."""
    found = re.fullmatch(rb"(?i:https?)://[^/?]*(.*)", target)
    return target if found is None else found[1] if found[1][:1] == b"/" else b"/" + found[1]


def by_h11(data: bytes) -> tuple[list[Parsed], str]:
    """What h11 makes of a stream, where empty lines before each request are skipped."""
    found, why = parse_requests(data[EMPTY_LINES.match(data).end() :])  # type: ignore[union-attr]
    return [(method, origin(target), headers, body) for method, target, headers, body in found], why


edits = st.tuples(st.integers(0, 2**32), st.integers(0, 4))
streams = st.builds(
    lambda parts, edit: mutated(random.Random(edit[0]), b"".join(parts), edit[1]),
    st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3),
    edits,
)


@settings(max_examples=600, deadline=None)
@given(streams)
@example(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}\r\n" + REQUESTS[0])
def test_what_we_accept_h11_accepts_with_the_same_meaning(data: bytes) -> None:
    ours = read(data)
    theirs, why = by_h11(data)
    if len(ours.accepted) > len(theirs) and why.startswith("no request line"):
        return  # empty lines between two requests
    assert ours.accepted == theirs[: len(ours.accepted)], why


@settings(max_examples=600, deadline=None)
@given(streams)
def test_what_h11_refuses_we_refuse(data: bytes) -> None:
    data += b"\r\n\r\n"  # a head that is not whole might yet be an empty line for us, and nothing for h11
    theirs, why = by_h11(data)
    if why in {"more", "close"} or why.startswith("no request line"):
        return
    ours = read(data)
    assert ours.refused or len(ours.accepted) < len(theirs) or closes(ours), why


def closes(ours: Recorder) -> bool:
    """Whether the last accepted request ended the connection."""
    return bool(ours.accepted) and (b"connection", b"close") in ours.accepted[-1][2]


@settings(max_examples=400, deadline=None)
@given(streams, st.integers(0, 2**32))
def test_it_does_not_matter_how_bytes_arrive(data: bytes, seed: int) -> None:
    at_once = read(data)
    in_pieces = read(*cut(random.Random(seed), data, 12))
    assert in_pieces.accepted == at_once.accepted
    assert [failure.reason for failure in in_pieces.refused] == [failure.reason for failure in at_once.refused]


names = st.sampled_from([b"accept", b"x-a", b"user-agent", b"cookie", b"authorization"])
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map(str.encode)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b c"', b";;"])
chunks = st.lists(st.tuples(st.binary(min_size=1, max_size=50), extensions), max_size=6)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(names, values), max_size=5), chunks, st.booleans(), st.integers(0, 2**32))
def test_valid_requests_are_accepted(
    headers: list[tuple[bytes, bytes]], parts: list[tuple[bytes, bytes]], chunked: bool, seed: int
) -> None:
    body = b"".join(data for data, _ in parts)
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    if chunked:
        framed = b"".join(b"%x%b\r\n%b\r\n" % (len(data), extension, data) for data, extension in parts)
        rest = b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\nx-t: y\r\n\r\n"
    else:
        rest = b"Content-Length: %d\r\n\r\n" % len(body) + body
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + lines + rest
    ours = read(*cut(random.Random(seed), request * 2, 9))

    assert not ours.refused
    assert [accepted[3] for accepted in ours.accepted] == [body, body]
    assert ours.accepted[0][2][1:-1] == headers


LENGTHS = (
    b"0",
    b"00",
    b"7",
    b"12345",
    b"9" * 18,
    b"9" * 19,
    b"",
    b"-1",
    b"+1",
    b"1 1",
    b"1, 1",
    b"1\r\nX: y",
    b"\xb2",
    b" 3\t",
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(REQUESTS), st.sampled_from(LENGTHS), st.integers(0, 2**32), st.booleans())),
)
def test_a_head_like_the_last_one_is_read_like_a_new_one(requests: list[tuple[bytes, bytes, int, bool]]) -> None:
    heads = Heads()
    for request, length, seed, whole in requests:
        raw = request[: request.index(b"\r\n\r\n") + 4]
        raw = re.sub(rb"(Content-Length: )\d+", lambda found, length=length: found[1] + length, raw)  # type: ignore[misc]
        raw = raw if whole else mutated(random.Random(seed), raw, 1)
        got, fresh = heads.read(raw, 128), head.read(raw, 128)
        assert (got == fresh) if isinstance(got, Head) else isinstance(fresh, Failure)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(NASTY), max_size=30).map(b"".join), st.integers(0, 2**32))
def test_nonsense_is_refused_or_waits(data: bytes, seed: int) -> None:
    ours = read(*cut(random.Random(seed), data, 5))
    assert len(ours.refused) <= 1
    assert ours.accepted == by_h11(data)[0][: len(ours.accepted)] or b"\r\n" in data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.booleans(), st.sampled_from([200, 204, 304, 404, 500]))
def test_what_we_write_h11_reads(body: bytes, chunked: bool, status: int) -> None:
    length = None if chunked else len(body)
    head = framing.response_head(status, [framing.own_lines("r", "replica")], length, chunked=chunked, close=False)
    if status in {204, 304}:
        body, framed = b"", b""
    else:
        framed = framing.chunk(body) * bool(body) + framing.LAST_CHUNK if chunked else body
    assert parse_statuses(head + framed) == [status]
    assert parse_body(head + framed) == body

    request = framing.request_head((b"POST", b"/v1/completions"), "r:1", b"x-a: b\r\n", "id", len(body)) + body
    ((method, target, headers, got),), why = parse_requests(request * 1)
    assert (method, target, got, why) == (b"POST", b"/v1/completions", body, "more")
    assert headers.count((b"content-length", b"%d" % len(body))) == 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=80), max_size=5),
    st.sampled_from("clx"),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_answers_of_engines_arrive_as_they_are(parts: list[bytes], framed_by: str, old: bool, seed: int) -> None:
    """By chunks, length or close (x); to a client of HTTP/1.1 or an old one; in any reads."""
    body = b"".join(parts)
    framed = {
        "c": b"transfer-encoding: chunked\r\n\r\n" + b"".join(map(framing.chunk, parts)) + framing.LAST_CHUNK,
        "l": b"content-length: %d\r\n\r\n" % len(body) + body,
        "x": b"\r\n" + body,
    }
    answer = b"HTTP/1.1 200 OK\r\n" + framed[framed_by]

    async def ask() -> bytes:
        world = World(answer)
        world.engine.pieces = lambda data: cut(random.Random(seed), data, 9)
        world.engine.ends = lambda _: framed_by == "x"
        got = await world.send(ASK.replace(b"HTTP/1.1", b"HTTP/1.0") if old else ASK)
        assert not world.leaks()
        return got

    got = asyncio.run(ask())
    assert parse_statuses(got) == [200]
    assert parse_body(got) == body
