"""What has come of an engine's answer, and what is still held back of it. `passage` keeps one per attempt.

Events without generated text that open a stream are held back: they are neither a first token in the books nor bytes for the
client, so a request whose engine gives up behind them can still be moved. Bytes are searched with `find`, as in `resume`.
"""

import re

from halffull.engines.base import Dialect
from halffull.router.answers import dialect
from halffull.router.answers.dialect import Event
from halffull.router.answers.pattern import Pattern
from halffull.router.http import framing
from halffull.router.http.framing import Headers

HELD_BYTES = 256 << 10
"""of an answer that has not started; beyond it the answer counts as started"""
_EVENT_END = re.compile(rb"\r?\n\r?\n")


class Answer:
    """One engine's answer to one request."""

    __slots__ = ("_held", "_held_bytes", "_marks", "_tail", "_unread", "_within", "closed", "events", "lines",
                 "pattern", "retry_after_s", "started", "status", "usage_in")  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.lines = b""
        """its headers, as lines for the client"""
        self.events = False
        """it is a stream of server-sent events"""
        self.retry_after_s = 0
        self.started = False
        """generated text has come"""
        self.closed = False
        """the event that closes the stream has come"""
        self.usage_in = b""
        """the last piece that told usage"""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._unread = b""
        self._tail = b""
        self._marks: tuple[bytes, ...] | None = None
        self.pattern = Pattern()
        """of its events"""
        self._within = False
        """the last piece ended within an event"""

    @property
    def whole(self) -> bool:
        """Whether an event has closed the stream, so that nothing is missing but its framing."""
        return self.closed and bool(self._marks)

    def begin(self, status: int, headers: Headers, fields: dict[bytes, bytes]) -> None:
        """Note the head."""
        self.status = status
        self.events = fields.get(b"content-type", b"").startswith(b"text/event-stream")
        retry_after = fields.get(b"retry-after")
        if retry_after is not None and retry_after.isdigit() and len(retry_after) < 7:
            self.retry_after_s = int(retry_after)
        self.lines = framing.passed_on(headers, fields.get(b"connection"))

    def hold(self, data: bytes, api: Dialect) -> Event:
        """Keep a piece of the body back; return what is known now: OPENING while the answer has not started."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self.events:
            self._unread += data
            while (end := _EVENT_END.search(self._unread)) is not None:
                event, self._unread = self._unread[: end.start()], self._unread[end.end() :]
                meaning = dialect.meaning(api, event)
                if meaning is not Event.OPENING:
                    return meaning
        return Event.STARTED if self._held_bytes > HELD_BYTES else Event.OPENING

    def release(self) -> bytes:
        """Return what was held back."""
        held, self._held, self._unread = self._held, [], b""
        return held[0] if len(held) == 1 else b"".join(held)

    def familiar(self, data: bytes) -> int:
        """Return the tokens of a piece of the stream, if its events are like others that were read; 0: it has to be read."""
        events = 0 if self._within else self.pattern.known(data)
        if not events:
            self._within = not data.endswith(b"\n\n")
            if not self._within:
                self.pattern.learn(data)
        return events

    def passed(self, data: bytes, api: Dialect) -> int:
        """Note a piece of the stream that goes to the client; return its tokens, which are taken to be its events."""
        if data.find(b'"usage"') >= 0:
            self.usage_in = data
        if not self.closed:
            if self._marks is None:
                self._marks = dialect.ENDS[api]
                self.closed = not self._marks
            piece = self._tail + data if self._tail else data  # the event may come in several pieces
            for mark in self._marks:
                if piece.find(mark) >= 0:
                    self.closed = True
            self._tail = b"" if data.endswith(b"\n\n") else piece[-dialect.LONGEST_END :]
        return data.count(b"data:")
