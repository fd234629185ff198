"""The body of a client's request, put together from what arrives: by its length, or in chunks. Pure; `client` calls it.

Chunks are read by the letter of RFC 9112 section 7.1: servers that disagree on line ends, extensions and trailers are what
request smuggling lives on. Extensions and trailers are dropped.
"""

import re
from typing import Protocol

from halffull.core.errors import Failure, Reason

SMALL = 1024
"""pieces below this are put together at once, so that tiny ones cost no more memory than their bytes"""
FREE_OVERHEAD = 16 << 10
"""bytes of chunk lines, extensions and trailers that any body may have; beyond it, as many as it has bytes"""
LONGEST_LINE = 8 << 10
"""bytes of a chunk line or a trailer"""

_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;[\t -~\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n")
_PARTIAL_LINE = re.compile(rb"[\t -~\x80-\xff]*\r?\Z")


class Body(Protocol):
    """What arrives of one body."""

    def feed(self, data: bytes) -> bytes | Failure | None:
        """Take what came; return the bytes after the body's end, None while it has not ended, or why it is refused."""

    def whole(self) -> bytes:
        """Return all of it, once it has ended."""


class Pieces:
    """Bytes in the order in which they came."""

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []

    def add(self, data: bytes) -> None:
        """Add some."""
        pieces = self._pieces
        if len(data) >= SMALL or not pieces:
            pieces.append(data)
        elif isinstance(pieces[-1], bytearray):
            pieces[-1] += data
        else:
            pieces.append(bytearray(data))

    def whole(self) -> bytes:
        """Return them all."""
        return b"".join(self._pieces)


class Sized:
    """A body whose length is known."""

    def __init__(self, length: int) -> None:
        self._left = length
        self._pieces = Pieces()

    def feed(self, data: bytes) -> bytes | None:
        """See `Body`."""
        left = self._left
        if len(data) < left:
            self._pieces.add(data)
            self._left = left - len(data)
            return None
        self._pieces.add(data[:left])
        return data[left:]

    def whole(self) -> bytes:
        """See `Body`."""
        return self._pieces.whole()


class Chunked:
    """A body in chunks."""

    def __init__(self, limit: int) -> None:
        """`limit`: the most bytes that the body may have."""
        self._limit = limit
        self._pieces = Pieces()
        self._bytes = 0
        self._overhead = 0
        self._unread = b""
        """a part of a line"""
        self._left = 0
        """bytes of the current chunk that are to come"""
        self._ends_line = False
        """the line end after a chunk is to come"""
        self._trailers = False

    def feed(self, data: bytes) -> bytes | Failure | None:
        """See `Body`."""
        data, self._unread = self._unread + data, b""
        at = 0
        while True:
            if self._left:
                piece = data[at : at + self._left]
                self._pieces.add(piece)
                self._left -= len(piece)
                at += len(piece)
                if self._left:
                    return None
                self._ends_line = True
            line = data.find(b"\r\n", at)
            if line < 0:
                return self._part(data[at:])
            line += 2
            self._overhead += line - at
            if line - at > LONGEST_LINE or self._overhead > FREE_OVERHEAD + self._bytes:
                return _OVERHEAD
            failure = self._line(data, at, line)
            if failure is not None:
                return failure
            if self._trailers and line - at == 2:
                return data[line:]
            at = line

    def whole(self) -> bytes:
        """See `Body`."""
        return self._pieces.whole()

    def _line(self, data: bytes, at: int, end: int) -> Failure | None:
        """Read the line between `at` and `end`, its line end included."""
        if self._ends_line:
            self._ends_line = False
            return None if end - at == 2 else _MALFORMED
        if self._trailers:
            return None if end - at == 2 or _TRAILER.fullmatch(data, at, end) else _MALFORMED
        size = _SIZE.fullmatch(data, at, end)
        if size is None:
            return _MALFORMED
        self._left = int(size[1], 16)
        self._bytes += self._left
        self._trailers = self._left == 0
        if self._bytes > self._limit:
            return too_large(self._limit)
        return None

    def _part(self, rest: bytes) -> Failure | None:
        """Keep a part of a line, unless it can never become a whole one."""
        if len(rest) > LONGEST_LINE or self._overhead + len(rest) > FREE_OVERHEAD + self._bytes:
            return _OVERHEAD
        if not _PARTIAL_LINE.match(rest) or (self._ends_line and rest not in b"\r"):
            return _MALFORMED
        self._unread = rest
        return None


def too_large(limit: int) -> Failure:
    """Say that a body has more than `limit` bytes."""
    return Failure(Reason.BODY_TOO_LARGE, f"The body exceeds {limit} bytes.")


_MALFORMED = Failure(Reason.BAD_REQUEST, "The chunked body is not valid HTTP/1.1.")
_OVERHEAD = Failure(Reason.BAD_REQUEST, "The chunked body has more framing than content.")
