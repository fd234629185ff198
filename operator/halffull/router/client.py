"""Connections of clients: the server side of HTTP/1.1 as an asyncio Protocol.

Reads one request after the other, whole, and hands it to the `Server` (which is `proxy.Proxy`); answers go out in the order
of requests. What is ambiguous is refused and the connection closed.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from halffull.core.errors import Failure, Reason
from halffull.router import framing
from halffull.router.framing import Headers

NEVER = float("inf")
GONE = float("-inf")
LINGER_S = 2.0


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What a client may do; from `spec.router.limits`."""

    head_bytes: int = 64 << 10
    headers: int = 128
    body_bytes: int = 64 << 20
    head_s: float = 15.0
    """seconds for a request's head, from its first byte"""
    body_s: float = 60.0
    """seconds for a request's body"""
    idle_s: float = 75.0
    """seconds that a connection may rest between requests"""
    age_s: float = 3600.0
    """seconds after which a connection is closed at its next answer, so that a Service spreads over routers"""
    pipelined: int = 16
    """requests read ahead of their answers"""


@dataclass(slots=True)
class Head:
    """Method, target and headers of one request."""

    method: bytes
    target: bytes
    path: str
    headers: Headers
    chunked_ok: bool
    """the client speaks HTTP/1.1 and so reads chunked bodies"""
    fields: dict[bytes, bytes]
    """the same headers by name; of several with one name, the last"""


class Answering(Protocol):
    """What answers the current request of a client."""

    def client_gone(self) -> None:
        """The client closed; nobody waits for the answer."""

    def pause(self) -> None:
        """The client reads slower than the engine writes."""

    def resume(self) -> None:
        """The client has caught up."""


class Server(Protocol):
    """Who gets the requests."""

    limits: ClientLimits
    closing: bool
    """connections end with their next answer"""

    def opened(self, client: "Client") -> None:
        """A client connected."""

    def closed(self, client: "Client") -> None:
        """A client's connection is gone."""

    def examine(self, head: Head) -> Failure | None:
        """Refuse a request by its head, before its body is read."""

    def handle(self, client: "Client", head: Head, body: bytes) -> None:
        """Answer a request, now or later."""

    def refuse(self, client: "Client", head: Head, failure: Failure) -> None:
        """Answer with an error."""


class Client(asyncio.Protocol):
    """One client connection."""

    def __init__(self, server: Server, clock: Callable[[], float]) -> None:
        self._server = server
        self._clock = clock
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None
        self._target = b""
        self._headers: Headers = []
        self._head_bytes = 0
        self._head_limit = server.limits.head_bytes
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._reading = False
        self._ahead: deque[tuple[Head, bytes, Failure | None]] = deque()
        self._last = False
        """no further request is read"""
        self._lingers = False
        """the client may still be sending what was refused"""
        self._born = 0.0
        self._current: Head | None = None
        self.answering: Answering | None = None
        """who writes the current answer, if it takes time"""
        self.deadline = NEVER
        self.paused = False
        """the client does not read"""

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self._born = self._clock()
        self.deadline = self._born + self._server.limits.head_s
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: parse; what cannot be parsed is answered with 400 and the connection closed."""
        if self._last:
            return  # what follows the last request is not looked at
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(Failure(Reason.BAD_REQUEST, "The request is not valid HTTP/1.1."))
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        self.deadline = GONE
        self._ahead.clear()
        answering, self.answering = self.answering, None
        self._server.closed(self)
        if answering is not None:
            answering.client_gone()

    def pause_writing(self) -> None:
        """Called by asyncio."""
        self.paused = True
        if self.answering is not None:
            self.answering.pause()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self.paused = False
        if self.answering is not None:
            self.answering.resume()

    def expired(self, now: float) -> None:
        """Called by the wheel: the client was slow, or rested for too long."""
        self.deadline = NEVER
        if self._reading:
            self._refuse(Failure(Reason.SLOW_CLIENT, "The request did not arrive in time."))
            self._next()
        elif self._current is None:
            self.close()

    # --- httptools

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._reading = True
        self._target, self._headers, self._head_bytes = b"", [], 0
        self._head, self._body, self._body_bytes = None, [], 0
        if self._current is None:
            self.deadline = self._clock() + self._server.limits.head_s

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._target += url
        self._head_bytes += len(url)
        if self._head_bytes > self._head_limit:
            self._head_too_large()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers.append((name.lower(), value))
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._head_limit:
            self._head_too_large()

    def on_headers_complete(self) -> None:
        """Called by the parser: refuse early what need not be read."""
        if self._last or self._offers_upgrade():
            return
        if len(self._headers) > self._server.limits.headers:
            self._head_too_large()
        version, method = self._parser.get_http_version(), self._parser.get_method()
        failure = framing.examine(version, method, self._target, self._headers)
        path = framing.path_of(self._target)
        head = Head(method, self._target, path, self._headers, version == "1.1", dict(self._headers))
        if failure is None:
            self._head = head
            failure = self._server.examine(head) or self._expectation(head)
        if failure is not None:
            self._refuse(failure)
        elif self._current is None:
            self.deadline = self._clock() + self._server.limits.body_s

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._body_bytes += len(data)
        if self._body_bytes <= self._server.limits.body_bytes:
            self._body.append(data)
        elif not self._last:
            self._refuse(self._too_large())

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._offers_upgrade():
            return
        self._reading = False
        if self._last or self._head is None:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if not self._parser.should_keep_alive():
            self._last = True
        self._ahead.append((self._head, body, None))
        self._head, self._body = None, []
        if len(self._ahead) > self._server.limits.pipelined:
            self._refuse(Failure(Reason.BAD_REQUEST, "Too many requests are pipelined."))

    # --- answers, for the server

    def respond(self, status: int, lines: Iterable[bytes], body: bytes) -> None:
        """Send a whole answer."""
        head = self._answer_head(status, lines, len(body), chunked=False)
        self.write(head if self._current is not None and self._current.method == b"HEAD" else head + body)
        self.end()

    def begin(self, status: int, lines: Iterable[bytes]) -> bool:
        """Send the head of an answer whose length is not known; return whether its body is to be chunked."""
        chunked = self._current is not None and self._current.chunked_ok
        self.write(self._answer_head(status, lines, None, chunked=chunked))
        return chunked

    def write(self, data: bytes) -> None:
        """Send bytes of the current answer."""
        if self._transport is not None:
            self._transport.write(data)

    def end(self) -> None:
        """The answer is complete; go on with the next request."""
        self._current = None
        self.answering = None
        self.deadline = self._clock() + self._server.limits.idle_s
        if self._last and not self._ahead:
            self._leave()
        elif self._ahead:
            asyncio.get_running_loop().call_soon(self._next)

    def close(self) -> None:
        """Close after what is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Break off, so that the client sees that its answer is not whole."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def idle(self) -> bool:
        """Whether it has no request, not even a part of one."""
        return self._current is None and not self._reading and not self._ahead

    # --- inside

    def _feed(self, data: bytes) -> None:
        """Parse. An offer to upgrade is ignored, as RFC 9110 section 7.8 allows: curl and Java's client offer h2c.

        The parser stops at such a request's body; another one reads the request again without the offer.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            if self._last:
                return
            method, version = self._parser.get_method(), self._parser.get_http_version().encode()
            lines = [b"%b: %b\r\n" % header for header in self._headers if header[0] != b"upgrade"]
            head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self._target, version, b"".join(lines))
            self._parser = httptools.HttpRequestParser(self)
            self._feed(head + data[stopped.args[0] :])

    def _offers_upgrade(self) -> bool:
        """Whether the parser will stop at the end of this head. (At CONNECT too, which is refused by its method.)"""
        return self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT"

    def _next(self) -> None:
        if self._current is not None or not self._ahead or self._transport is None:
            return
        head, body, failure = self._ahead.popleft()
        self._current = head
        self.deadline = NEVER
        if failure is not None:
            self._server.refuse(self, head, failure)
        else:
            self._server.handle(self, head, body)

    def _refuse(self, failure: Failure) -> None:
        """Answer with an error after the answers before it, then close: the rest of the stream cannot be trusted."""
        if self._last:
            return
        self._last, self._reading = True, False
        self._lingers = True
        head = Head(b"", b"", "", [], chunked_ok=False, fields={}) if self._head is None else self._head
        self._ahead.append((head, b"", failure))

    def _leave(self) -> None:
        """Close. Where the client may still be sending, wait a little, or it would not get to read the answer."""
        if self._lingers and self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()
            self.deadline = self._clock() + LINGER_S
        else:
            self.close()

    def _answer_head(self, status: int, lines: Iterable[bytes], length: int | None, *, chunked: bool) -> bytes:
        close = self._ends() or (length is None and not chunked)
        if close:
            self._last = True
            self._ahead.clear()
        return framing.response_head(status, lines, length, chunked=chunked, close=close)

    def _ends(self) -> bool:
        old = self._clock() - self._born > self._server.limits.age_s
        return (self._last and not self._ahead) or self._server.closing or old

    def _head_too_large(self) -> None:
        self._refuse(Failure(Reason.HEAD_TOO_LARGE, "The request's head is too large."))
        raise httptools.HttpParserError("head too large")

    def _too_large(self) -> Failure:
        return Failure(Reason.BODY_TOO_LARGE, f"The body exceeds {self._server.limits.body_bytes} bytes.")

    def _expectation(self, head: Head) -> Failure | None:
        if int(head.fields.get(b"content-length", 0)) > self._server.limits.body_bytes:
            return self._too_large()
        expected = head.fields.get(b"expect")
        if expected and expected.lower() != b"100-continue":
            return Failure(Reason.EXPECTATION_FAILED, "Only 'Expect: 100-continue' is known.")
        if expected and self._current is None and not self._ahead:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None
