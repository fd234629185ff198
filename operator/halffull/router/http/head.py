"""The head of a client's request: bytes to `Head`, or why they are refused. Pure; `client` calls it.

Two judges must agree: the parser (llhttp at default strictness) on syntax, and the rules here on what the parser lets through
but two parties may read differently (RFC 9112 sections 3, 5, 6 and 11; RFC 9110 sections 7.2, 9.3 and 17).
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

import httptools

from halffull.core.errors import Failure, Reason
from halffull.router.http import framing
from halffull.router.http.framing import Headers

MOST_DIGITS = 18
"""of a Content-Length: every such number fits in 64 bits"""

_LINE = re.compile(rb"([A-Z-]+) (?:(/[\w/-]*)|([!-~]+)) HTTP/1\.([01])\r\n")
"""a target of the second group is a path that everybody reads alike"""
_BEGINNING = re.compile(rb"\r\Z|[A-Z-]{0,32}(?: |\Z)")
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\0")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)")
_CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([0-9]+)[ \t]*\r\n")
_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type", b"expect"})
_MISREAD = frozenset({b"content_length", b"transfer_encoding", b"host_"})
"""names that some servers read as framing headers"""
_WITHOUT_BODY = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT"})
"""methods with whose bodies servers disagree"""


@dataclass(slots=True)
class Head:
    """Method, target and headers of one request."""

    method: bytes
    target: bytes
    """in origin-form: path and query, or `*`"""
    path: str
    headers: Headers
    fields: dict[bytes, bytes]
    """the same headers by name; of several with one name, the last"""
    modern: bool
    """the client speaks HTTP/1.1 and so reads chunked bodies"""
    persists: bool
    """the client may send another request on the connection"""
    length: int | None
    """bytes of the body; None: it is chunked"""
    _withheld: frozenset[bytes] | None = field(default=None, compare=False)
    _passed_on: bytes = field(default=b"", compare=False)

    def passed_on(self, withheld: frozenset[bytes]) -> bytes:
        """Return the header lines that an engine gets, `withheld` left out; written once for all requests with this head."""
        if self._withheld is not withheld:
            self._withheld = withheld
            self._passed_on = framing.passed_on(self.headers, self.fields.get(b"connection"), withheld)
        return self._passed_on


NO_HEAD = Head(b"", b"", "", [], {}, modern=False, persists=False, length=0)
"""in place of one that could not be read"""


class Heads:
    """Reads the heads of one connection. Most differ from the one before in their Content-Length alone: they are not read again.

    Such a head comes as the same object, with the new length; the request before must be over.
    """

    __slots__ = ("_after", "_before", "_head", "_place")

    def __init__(self) -> None:
        self._before = self._after = b""
        """what stands around the length in the last head"""
        self._head = NO_HEAD
        self._place = -1
        """of its Content-Length among its headers; -1: it has none"""

    def read(self, raw: bytes, most_headers: int) -> Head | Failure:
        """Read a whole head, from its first byte to the end of its empty line."""
        head = self._head
        if self._place >= 0 and raw.startswith(self._before) and raw.endswith(self._after):
            digits = raw[len(self._before) : len(raw) - len(self._after)]
            if digits.isdigit() and len(digits) <= MOST_DIGITS:
                head.headers[self._place] = (b"content-length", digits)
                head.fields[b"content-length"] = digits
                head.length = int(digits)
                return head
        found = read(raw, most_headers)
        if isinstance(found, Head):
            self._remember(raw, found)
        return found

    def _remember(self, raw: bytes, head: Head) -> None:
        length = _CONTENT_LENGTH.search(raw)
        if length is None or head.method in _WITHOUT_BODY:
            self._place = -1
            return
        self._before, self._after = raw[: length.start(1)], raw[length.end(1) :]
        self._head = head
        self._place = next(place for place, (name, _) in enumerate(head.headers) if name == b"content-length")


class _Headers:
    """What the parser reports to."""

    def __init__(self) -> None:
        self.found: Headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, which leaves white space after the value."""
        self.found.append((name.lower(), value.rstrip()))


def read(raw: bytes, most_headers: int) -> Head | Failure:
    """Read a whole head, from its first byte to the end of its empty line."""
    line = _LINE.match(raw)
    if line is None:
        return _refused("The request line must be 'METHOD target HTTP/1.1' or 'HTTP/1.0'.")
    seen = _Headers()
    headers = seen.found
    try:
        httptools.HttpRequestParser(seen).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # an offer to upgrade is ignored, as RFC 9110 section 7.8 allows: curl and Java's client offer h2c
    except httptools.HttpParserError as error:
        return _refused(f"The request is not valid HTTP/1.1: {error}.")
    if len(headers) > most_headers:
        return Failure(Reason.HEAD_TOO_LARGE, f"The request has more than {most_headers} headers.")
    method, plain, odd, minor = line.groups()
    fields = dict(headers)
    if len(fields) != len(headers) and _repeats(headers):
        return _refused("A header that must stand once is repeated.")
    modern = minor == b"1"
    length = _length(fields, method, modern=modern)
    if isinstance(length, Failure):
        return length
    host = fields.get(b"host")
    if host is None or not _HOST.match(host):
        return _refused("Exactly one valid Host header is needed.")
    target = plain or _origin(odd, method, host)
    if isinstance(target, Failure):
        return target
    path = target.partition(b"?")[0]
    persists = modern and (b"connection" not in fields or b"close" not in options(headers))
    return Head(method, target, path.decode(), headers, fields, modern, persists, length)


def spoiled(data: bytes, seen: int) -> Failure | None:
    """Say early why the beginning of a head, of which `seen` bytes were looked at before, can never become a whole one."""
    if not _BEGINNING.match(data) or _BARE.search(data, seen):
        return _refused("This is not HTTP/1.1.")
    return None


def options(headers: Headers) -> set[bytes]:
    """Return the connection options (RFC 9110 section 7.6.1), in lower case."""
    named = (value for name, value in headers if name == b"connection")
    return {option.strip().lower() for value in named for option in value.split(b",")}


def _repeats(headers: Headers) -> bool:
    names = [name for name, _ in headers if name in _ONCE]
    return len(names) != len(set(names))


def _length(fields: dict[bytes, bytes], method: bytes, *, modern: bool) -> int | Failure | None:
    """Return how long the body is by its framing; None: chunked."""
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if not _MISREAD.isdisjoint(fields):
        return _refused("Header names of framing have no underscore.")
    if coding is not None:
        if not modern or coding.lower() != b"chunked" or length is not None:
            return _refused("Transfer-Encoding must be 'chunked', only on HTTP/1.1, and without Content-Length.")
        if method in _WITHOUT_BODY:
            return _refused(f"{method.decode()} takes no body.")
        return None
    if length is None:
        return 0
    if not length.isdigit() or len(length) > MOST_DIGITS:
        return _refused("Content-Length must be a decimal number.")
    if method in _WITHOUT_BODY and int(length):
        return _refused(f"{method.decode()} takes no body.")
    return int(length)


def _origin(target: bytes, method: bytes, host: bytes) -> bytes | Failure:
    """Return the target in origin-form, or `*`."""
    if target[:1] != b"/" and (target != b"*" or method != b"OPTIONS"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or absolute[1].lower() != host.lower():
            return _refused("The request target must be a path, or an URL of the same host.")
        target = absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]
    if b"#" in target or ((b"/." in target or b"%" in target or b"\\" in target) and _climbs(target)):
        return _refused("The request target must have no dot segments, control characters and fragment.")
    return target


def _climbs(target: bytes) -> bool:
    """Whether a server that decodes or normalises the path may take it for another one."""
    plain = unquote_to_bytes(target.partition(b"?")[0]).replace(b"\\", b"/")
    return not {b".", b".."}.isdisjoint(plain.split(b"/")) or any(byte <= 0x20 or byte == 0x7F for byte in plain)


def _refused(message: str) -> Failure:
    return Failure(Reason.BAD_REQUEST, message)
