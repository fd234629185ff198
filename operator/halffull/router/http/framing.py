"""HTTP/1.1 messages that we write: heads of requests and answers, chunks. Pure; `client`, `proxy` and `passage` call it."""

from collections.abc import Iterable
from http import HTTPStatus

Headers = list[tuple[bytes, bytes]]
"""names in lower case"""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""meant for one connection only (RFC 9110 section 7.6.1)"""
REWRITTEN = frozenset(
    {
        b"accept-encoding",
        b"content-length",
        b"expect",
        b"host",
        b"x-halffull-caller",
        b"x-halffull-priority",
        b"x-halffull-resume",
    }
)
"""written anew, or meant for us; answers come as they are, not compressed, since they are read on their way"""
BODILESS = frozenset({204, 304})
"""status of answers that end with their head"""
OURS = frozenset({b"x-request-id", b"x-halffull-replica", b"x-halffull-reason"})
"""headers of answers that only the router sets"""

_DROPPED = HOP_BY_HOP | REWRITTEN | OURS
JSON = b"content-type: application/json\r\n"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def passed_on(headers: Headers, connection: bytes | None, withheld: frozenset[bytes] = frozenset()) -> bytes:
    """Return header lines of all but hop-by-hop, framing, own and `withheld` headers; `connection`: more hop-by-hop ones."""
    dropped = _DROPPED | withheld if withheld else _DROPPED
    if connection is not None:
        named = (value for name, value in headers if name == b"connection")
        dropped = dropped.union(option.strip().lower() for value in named for option in value.split(b","))
    return b"".join([b"%b: %b\r\n" % header for header in headers if header[0] not in dropped])


def request_head(start: tuple[bytes, bytes], host: str, lines: bytes, request_id: str, length: int) -> bytes:
    """Return the head of the request that an engine gets: one Content-Length, no hop-by-hop headers.

    `start` is method and target.
    """
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
        *start,
        host.encode(),
        lines,
        request_id.encode(),
        length,
    )


def status_line(status: int) -> bytes:
    """Return the status line; an unregistered status has no phrase."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def response_head(status: int, lines: Iterable[bytes], length: int | None, *, chunked: bool, close: bool) -> bytes:
    """Return the head of an answer: Content-Length where known, else chunked, else ended by closing.

    Answers that have no body say nothing of its length (RFC 9110 section 8.6).
    """
    framing = b""
    if status in BODILESS:
        pass
    elif length is not None:
        framing = b"content-length: %d\r\n" % length
    elif chunked:
        framing = b"transfer-encoding: chunked\r\n"
    connection = b"connection: close\r\n" if close else b""
    return b"".join((status_line(status), *lines, framing, connection, b"\r\n"))


def own_lines(request_id: str, replica: str = "") -> bytes:
    """Return the header lines that every answer carries."""
    lines = b"x-request-id: %b\r\n" % request_id.encode()
    return lines + b"x-halffull-replica: %b\r\n" % replica.encode() if replica else lines


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
