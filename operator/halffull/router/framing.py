"""HTTP/1.1 messages as bytes: what a request's head may be, and how we write heads. Pure; `client` and `proxy` call it.

The parser (llhttp at default strictness) refuses malformed syntax; `examine` refuses what it lets through but two parties
may read differently (RFC 9112 sections 3.2, 6.1, 7.1 and 11).
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

from halffull.core.errors import Failure, Reason

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
REWRITTEN = frozenset({b"content-length", b"host", b"expect"})
"""written anew, or answered by us"""
OURS = frozenset({b"x-request-id", b"x-halffull-replica", b"x-halffull-reason"})
"""headers of answers that only the router sets"""

_DROPPED = HOP_BY_HOP | REWRITTEN | OURS
JSON = b"content-type: application/json\r\n"
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]+\Z")
_MISREAD = frozenset({b"content_length", b"transfer_encoding", b"host_"})
"""names that some servers read as framing headers"""
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def examine(version: str, method: bytes, target: bytes, headers: Headers) -> Failure | None:
    """Return why a request's head is refused, or None."""
    if version not in {"1.1", "1.0"}:
        return _refused("HTTP version must be 1.0 or 1.1.")
    hosts = 0
    host = b""
    for name, value in headers:
        if name == b"host":
            hosts += 1
            host = value
        elif name == b"transfer-encoding":
            if version == "1.0" or value.lower() != b"chunked":
                return _refused("Transfer-Encoding must be 'chunked', and only on HTTP/1.1.")
        elif name in _MISREAD:
            return _refused("Header names of framing have no underscore.")
    if hosts != 1 or not _HOST.match(host):
        return _refused("Exactly one valid Host header is needed.")
    if target[:1] == b"/" or (target == b"*" and method == b"OPTIONS"):
        return None
    scheme, _, rest = target.partition(b"://")
    if scheme.lower() in {b"http", b"https"} and re.split(rb"[/?#]", rest, maxsplit=1)[0].lower() == host.lower():
        return None
    return _refused("The request target must be a path, or an URL of the same host.")


def path_of(target: bytes) -> str:
    """Return the path of an examined target, without its query."""
    if target[:1] != b"/" and b"://" in target:
        rest = target.partition(b"://")[2]
        target = b"/" + rest.partition(b"/")[2]
    return target.partition(b"?")[0].decode("latin-1")


def passed_on(headers: Headers, connection: bytes | None) -> bytes:
    """Return header lines of all but hop-by-hop, framing and own headers; `connection`: which more are hop-by-hop."""
    dropped = _DROPPED
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
    """Return the head of an answer: Content-Length where known, else chunked, else ended by closing."""
    framing = b""
    if length is not None:
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


def _refused(message: str) -> Failure:
    return Failure(Reason.BAD_REQUEST, message)
