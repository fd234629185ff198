"""Connections of clients: the server side of HTTP/1.1 as an asyncio Protocol.

Reads one request after the other, whole, and hands it to the `Server` (which is `proxy.Proxy`); `head` and `body` judge the
bytes. What is ambiguous is refused and the connection closed. Of a client that sends its next requests before it has its
answer, a little is kept unread, then it has to wait. A client that ends its sending side is taken to be gone: the end is all
that one sees of a client that leaves, and an engine must not generate for nobody.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, cast

from halffull.core.errors import Failure, Reason
from halffull.router.http import framing, head
from halffull.router.http.body import Body, Chunked, Sized, too_large
from halffull.router.http.head import Head

NEVER = float("inf")
AHEAD_BYTES = 64 << 10
"""what a client may send before its last answer is complete; one read may exceed it"""
LINGER_IDLE_S = 2.0
LINGER_S = 30.0
"""how long a client that was refused may go on sending, so that it gets to read why; and without a pause of LINGER_IDLE_S"""
_EMPTY_LINES = re.compile(rb"(?:\r\n)*")


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What clients may do; from `spec.router.limits`."""

    head_bytes: int = 64 << 10
    headers: int = 128
    body_bytes: int = 64 << 20
    connections: int = 10_000
    """client connections of this process; further ones are closed at once"""
    head_s: float = 15.0
    """seconds for a request's head, from its first byte"""
    body_s: float = 60.0
    """seconds for a request's body"""
    idle_s: float = 75.0
    """seconds that a connection may rest between requests"""
    age_s: float = 3600.0
    """seconds after which a connection is closed at its next answer, so that a Service spreads over routers"""


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

    def opened(self, client: "Client") -> bool:
        """A client connected; return whether it may stay."""

    def closed(self, client: "Client") -> None:
        """A client's connection is gone."""

    def examine(self, head: Head) -> Failure | None:
        """Refuse a request by its head, before its body is read."""

    def handle(self, client: "Client", head: Head, body: bytes) -> None:
        """Answer a request, now or later."""

    def refuse(self, client: "Client", head: Head, failure: Failure) -> None:
        """Answer with an error."""


class Client(asyncio.Protocol):
    """One client connection. It waits for a head, reads a body, or is answered; when answered, it waits again or is last."""

    def __init__(self, server: Server, clock: Callable[[], float]) -> None:
        self._server = server
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._born = 0.0
        self._unread = b""
        """a part of a head, or what was sent ahead"""
        self._searched = 0
        """how much of it was searched for the end of a head"""
        self._held = False
        """it has sent too much ahead; nothing is read from it"""
        self._heads = head.Heads()
        self._head: Head | None = None
        """of the request whose body is being read"""
        self._body: Body | None = None
        self._current: Head | None = None
        """of the request that is being answered"""
        self._last = False
        """no further request is read"""
        self._refused = False
        """we end the connection, and the client may still be sending"""
        self._lingers_until = 0.0
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
        if not self._server.opened(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._last:
            self._linger()
        elif self._current is not None or self.paused:
            self._keep(data)
        elif self._body is not None:
            self._read_body(data)
        else:
            self._read_head(data)

    def eof_received(self) -> None:
        """Called by asyncio."""
        self._gone()
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        self._server.closed(self)
        self._gone()

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
        elif self._unread or self._held:
            self._next()

    def expired(self) -> None:
        """Called by `proxy` after `deadline`: the client was slow, or rested for too long."""
        if (self._body is not None or self._unread) and not (self._last or self.paused):
            self._refuse(head.NO_HEAD, Failure(Reason.SLOW_CLIENT, "The request did not arrive in time."))
        elif self._transport is not None and self._transport.is_closing():
            self.abort()  # it does not even read its last answer
        else:
            self.close()

    # --- requests

    def _read_head(self, data: bytes) -> None:
        """Read a request from its first byte on."""
        seen = self._searched
        if self._unread:
            data = self._unread + data
        if data[:1] == b"\r":
            data, seen = data[cast("re.Match[bytes]", _EMPTY_LINES.match(data)).end() :], 0
        limits = self._server.limits
        end = data.find(b"\r\n\r\n", max(seen - 3, 0)) + 4
        if end < 4 or end > limits.head_bytes:
            self._await_head(data, seen)
            return
        self._unread, self._searched = b"", 0
        found = self._heads.read(data[:end], limits.headers)
        if isinstance(found, Failure):
            self._refuse(head.NO_HEAD, found)
            return
        length = found.length
        failure = self._server.examine(found) or self._examine(found)
        if failure is not None and length != 0:
            self._refuse(found, failure)
        elif length is not None and len(data) - end >= length:
            self._take(found, data[end : end + length], data[end + length :], failure)
        else:
            self._await_body(found, data[end:])

    def _await_head(self, data: bytes, seen: int) -> None:
        """A head is not whole yet, or too large."""
        if len(data) > self._server.limits.head_bytes:
            self._refuse(head.NO_HEAD, Failure(Reason.HEAD_TOO_LARGE, "The request's head is too large."))
            return
        failure = head.spoiled(data, max(seen - 1, 0))
        if failure is not None:
            self._refuse(head.NO_HEAD, failure)
            return
        if not seen and data.strip(b"\r"):  # an empty line, or half of one, begins nothing
            self.deadline = self._clock() + self._server.limits.head_s
        self._unread, self._searched = data, len(data)

    def _await_body(self, found: Head, data: bytes) -> None:
        """A head is whole, its body is not."""
        limits = self._server.limits
        self.deadline = self._clock() + limits.body_s
        self._head = found
        self._body = Chunked(limits.body_bytes) if found.length is None else Sized(found.length)
        if not data and found.modern and b"expect" in found.fields:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._read_body(data)

    def _read_body(self, data: bytes) -> None:
        body, found = self._body, self._head
        if body is None or found is None:
            return
        rest = body.feed(data)
        if isinstance(rest, bytes):
            self._head = self._body = None
            self._take(found, body.whole(), rest)
        elif rest is not None:
            self._refuse(found, rest)

    def _examine(self, found: Head) -> Failure | None:
        """Refuse what need not be read."""
        most = self._server.limits.body_bytes
        if found.length is not None and found.length > most:
            return too_large(most)
        expected = found.fields.get(b"expect")
        if expected is not None and expected.lower() != b"100-continue":
            return Failure(Reason.EXPECTATION_FAILED, "Only 'Expect: 100-continue' is known.")
        return None

    def _take(self, found: Head, body: bytes, ahead: bytes, failure: Failure | None = None) -> None:
        """A request is whole: hand it over. One without a body that is refused by its head costs no connection."""
        self._current = found
        self.deadline = NEVER
        self._unread = ahead
        if not found.persists:
            self._last = True
        if failure is None:
            self._server.handle(self, found, body)
        else:
            self._server.refuse(self, found, failure)

    def _refuse(self, found: Head, failure: Failure) -> None:
        """Answer with an error, then close: what else comes cannot be trusted, or is a body that nobody wants."""
        self._head = self._body = None
        self._current = found
        self.deadline = NEVER
        self._unread = b""
        self._last = self._refused = True
        self._server.refuse(self, found, failure)

    def _keep(self, data: bytes) -> None:
        """The client sends ahead of its answers."""
        self._unread += data
        if len(self._unread) > AHEAD_BYTES and self._transport is not None:
            self._held = True
            self._transport.pause_reading()

    def _next(self) -> None:
        """Read what was sent ahead."""
        if self._current is not None or self._last or self.paused or self._transport is None:
            return
        if self._held:
            self._held = False
            self._transport.resume_reading()
        data, self._unread = self._unread, b""
        if data:
            self.data_received(data)

    # --- answers, for the server

    def respond(self, status: int, lines: Iterable[bytes], body: bytes) -> None:
        """Send a whole answer."""
        answer = self._answer_head(status, lines, len(body), chunked=False)
        self.write(answer if self._current is not None and self._current.method == b"HEAD" else answer + body)
        self.end()

    def begin(self, status: int, lines: Iterable[bytes]) -> bool:
        """Send the head of an answer whose length is not known; return whether its body is to be chunked."""
        chunked = self._current is not None and self._current.modern
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
        if self._last:
            self._leave()
            return
        self.deadline = self._clock() + self._server.limits.idle_s
        if self._unread or self._held:
            asyncio.get_running_loop().call_soon(self._next)

    def close(self) -> None:
        """Close after what is written."""
        self.deadline = self._clock() + LINGER_S
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Break off, so that the client sees that its answer is not whole."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def idle(self) -> bool:
        """Whether it has no request, not even a part of one."""
        return self._current is None and self._body is None and not self._unread

    @property
    def busy(self) -> bool:
        """Whether it has a request, or a part of one, or has still to get some of an answer."""
        return not self.idle or (self._transport is not None and self._transport.get_write_buffer_size() > 0)

    # --- inside

    def _gone(self) -> None:
        self.deadline = NEVER
        self._unread = b""
        self._head = self._body = None
        self._last = True
        answering, self.answering = self.answering, None
        if answering is not None:
            answering.client_gone()

    def _leave(self) -> None:
        """Close. Where the client may still be sending, wait a little, or a reset would take the answer from it."""
        if not self._refused or self._transport is None:
            self.close()
            return
        if self._held:
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._lingers_until = self._clock() + LINGER_S
        self._linger()

    def _linger(self) -> None:
        """What follows the last request is not looked at."""
        if self._current is None and self._refused:
            self.deadline = min(self._clock() + LINGER_IDLE_S, self._lingers_until)

    def _answer_head(self, status: int, lines: Iterable[bytes], length: int | None, *, chunked: bool) -> bytes:
        if not self._last and (self._server.closing or self._clock() - self._born > self._server.limits.age_s):
            self._last = self._refused = True
        if length is None and not chunked:
            self._last = True
        if self._last:
            self._unread = b""
        return framing.response_head(status, lines, length, chunked=chunked, close=self._last)
