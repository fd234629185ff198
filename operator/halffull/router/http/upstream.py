"""Connections to engines: the client side of HTTP/1.1 as an asyncio Protocol, and the idle ones of each replica.

`engines` holds a pool of them for each replica. `passage` sends one request on a connection, and hears of the answer as its
`Reader`; so does `engine_client` for requests of our own.
"""

import asyncio
from collections.abc import Callable
from ssl import SSLContext
from typing import Protocol, cast

import httptools

from halffull.router.http.exhausted import EXHAUSTED, ExhaustedError
from halffull.router.http.framing import BODILESS, Headers

IDLE_S = 4.0
"""an idle connection is not used again after this time: uvicorn, which serves most engines, closes at 5 s"""
MAX_HEAD_BYTES = 64 << 10
"""of an answer's head, 1xx answers before it included, and between two pieces of its body"""
START = b"HTTP/1."
AT_ONCE = 16384
"""a request's body below this is joined to its head"""


class Reader(Protocol):
    """What hears of one answer."""

    def answer_head(self, status: int, headers: Headers, fields: dict[bytes, bytes]) -> None:
        """The final status and headers came, names in lower case; `fields`: the last one of each name."""

    def answer_data(self, data: bytes) -> None:
        """A piece of the body came, without its framing."""

    def answer_end(self) -> None:
        """The answer is complete by its framing."""

    def answer_lost(self, reason: str, *, reused: bool) -> None:
        """It will not be complete; `reused`: nothing came, on a connection that had served before."""


class Upstream(asyncio.Protocol):
    """One connection to a replica; it serves one request at a time."""

    def __init__(self, pool: "Pool", clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._parser = httptools.HttpResponseParser(self)
        self._reader: Reader | None = None
        self._headers: Headers = []
        self._pieces: list[bytes] = []
        """of the body, of what is being parsed"""
        self._until_close = False
        self._complete = False
        self._beyond = 0
        """bytes that came since the last piece of the body, which counts as one: 0 means that nothing came"""
        self._served = 0
        self._paused = False
        self._large = False
        """the request may not be sent in full yet"""
        self.idle_since = 0.0
        self.transport: asyncio.Transport | None = None

    def request(self, reader: Reader, head: bytes, body: bytes) -> None:
        """Send a request whose answer `reader` hears of."""
        self._reader = reader
        self._beyond = 0
        self._large = len(body) >= AT_ONCE
        if self.transport is not None:
            self.transport.write(head if self._large else head + body)
            if self._large:
                self.transport.write(body)

    def abandon(self) -> None:
        """Nobody wants the answer any more: close, which makes the engine stop."""
        self._reader = None
        if self.transport is not None:
            self.transport.abort()

    def release(self) -> None:
        """It was not needed after all: rest."""
        self._pool.put(self)

    def pause(self) -> None:
        """Stop reading, so that the engine waits."""
        self._paused = True
        if self.transport is not None:
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        if self.transport is not None:
            self.transport.resume_reading()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: parse; a byte nobody asked for, or a broken message, ends the connection."""
        if self._reader is None:
            self.close()
            return
        if self._beyond == 0 and not START.startswith(data[: len(START)]):
            self._lose("the answer is not HTTP/1.1")  # the parser would take ICE and RTSP for it
            return
        self._beyond += len(data)
        wrong = self._parse(data)
        if self._pieces:  # many chunks may come at once: they go on together, in one write
            pieces, self._pieces = self._pieces, []
            self._reader.answer_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if wrong:
            self._lose(wrong)
        elif self._complete:
            self._finish()
        elif self._beyond > MAX_HEAD_BYTES:
            self._lose("the answer has more framing than it may")

    def eof_received(self) -> None:
        """Called by asyncio: an answer without a length ends here."""
        if self._until_close and self._reader is not None:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self.transport = None
        self._pool.forget(self)
        self._lose("the connection was closed" if exc is None else f"the connection broke: {exc}")

    # --- httptools

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._complete:
            raise httptools.HttpParserError("bytes after the end of the answer")
        self._headers = []  # else trailers of the answer before would be among them

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status, headers = self._parser.get_status_code(), self._headers
        self._headers = []
        if status < 200 or self._reader is None:
            return  # 1xx: the final answer follows
        version, names = self._parser.get_http_version(), dict(headers)
        coding = names.get(b"transfer-encoding")
        if status > 599 or version not in {"1.1", "1.0"}:
            raise httptools.HttpParserError("status or version do not exist")
        if coding is not None and (coding.lower() != b"chunked" or version == "1.0" or _codings(headers) > 1):
            raise httptools.HttpParserError("the transfer coding is not known")
        self._until_close = status not in BODILESS and coding is None and b"content-length" not in names
        self._reader.answer_head(status, headers, names)

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._beyond = 1
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._parser.get_status_code() >= 200:
            self._complete = True
            self._until_close = self._until_close or not self._parser.should_keep_alive()

    # --- inside

    def _parse(self, data: bytes) -> str:
        """Take bytes of an answer; return what is wrong with them, if anything."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if isinstance(error, httptools.HttpParserCallbackError):
                _raise_own(error)
            if not self._complete:
                return f"the answer is malformed: {error}"
            self._until_close = True  # bytes after the end: the answer stands, the connection does not
        return ""

    def close(self) -> None:
        """Close after what is written."""
        if self.transport is not None:
            self.transport.close()

    def _finish(self) -> None:
        """The answer is complete. The connection is free before its reader hears, who may send the next request.

        It is not used again where the answer came before the engine had taken the whole request.
        """
        reader, self._reader = self._reader, None
        self._complete = False
        self._served += 1
        if self._paused:
            self.resume()
        if self._large and self.transport is not None and self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self._until_close:
            self.close()
        else:
            self._pool.put(self)
        if reader is not None:
            reader.answer_end()

    def _lose(self, reason: str) -> None:
        reader, self._reader = self._reader, None
        if self.transport is not None:
            self.transport.abort()
        if reader is not None:
            reader.answer_lost(reason, reused=self._served > 0 and self._beyond == 0)


class Pool:
    """Connections of one replica. Idle ones are used last in, first out, so that the rest time out."""

    def __init__(self, host: str, port: int, clock: Callable[[], float], tls: SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._clock = clock
        self.tls = tls
        """how new connections are opened"""
        self._idle: list[Upstream] = []
        self._closed = False

    def take(self) -> Upstream | None:
        """Return an idle connection that is fresh enough, or None."""
        oldest = self._clock() - IDLE_S
        while self._idle:
            upstream = self._idle.pop()
            if upstream.transport is not None and not upstream.transport.is_closing() and upstream.idle_since > oldest:
                return upstream
            upstream.close()
        return None

    def put(self, upstream: Upstream) -> None:
        """Keep a connection whose answer is complete."""
        if self._closed:
            upstream.close()
            return
        upstream.idle_since = self._clock()
        self._idle.append(upstream)

    async def connect(self, limit_s: float) -> Upstream:
        """Return a new connection. Raises ExhaustedError, another OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        name = self._host if self.tls else None
        async with asyncio.timeout(limit_s):
            try:
                _, upstream = await loop.create_connection(
                    lambda: Upstream(self, self._clock), self._host, self._port, ssl=self.tls, server_hostname=name
                )
            except OSError as error:
                if error.errno in EXHAUSTED:
                    raise ExhaustedError(*error.args) from error
                raise
        return upstream

    def prune(self, now: float) -> None:
        """Close what has been idle for too long."""
        while self._idle and self._idle[0].idle_since <= now - IDLE_S:
            self._idle.pop(0).close()

    def forget(self, upstream: Upstream) -> None:
        """A connection is gone."""
        if upstream in self._idle:
            self._idle.remove(upstream)

    def close(self) -> None:
        """Close idle connections now and busy ones when they are done."""
        self._closed = True
        for upstream in self._idle:
            upstream.close()
        self._idle.clear()


def _codings(headers: Headers) -> int:
    return sum(name == b"transfer-encoding" for name, _ in headers)


def _raise_own(error: httptools.HttpParserCallbackError) -> None:
    """Raise what one of our callbacks raised, unless it said that the answer is malformed: a fault of ours is no engine's."""
    cause = error.__context__
    if cause is not None and not isinstance(cause, httptools.HttpParserError):
        raise cause
