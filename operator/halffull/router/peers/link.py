"""One stream between two routers: messages, framing, and the proof on both sides that they share a secret.

`sharing` makes one `Link` per connection, dialed or accepted. Each message is MessagePack behind its length in four bytes.
Both sides send `Hello` with a nonce and prove that they know the token by an HMAC over both nonces; the token never
travels. What is told afterwards are counts of tokens and names of replicas, never prompts or answers.

A link that rests leaves what comes in its socket until it is asked for it: to be woken for a few bytes costs far more than to
read them along with others.
"""

import asyncio
import hmac
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import msgspec

from halffull.core.page import Page
from halffull.core.values import Signals
from halffull.router.unreadable import UNREADABLE

VERSION = 2
"""routers of another version are left alone: during an upgrade each side shares among its own"""
GREETING_BYTES = 4096
"""longest message of a peer that has not proved itself"""
MESSAGE_BYTES = 8 << 20
BUFFER_BYTES = 8 << 20
"""what may wait for a slow peer; past that it is dropped, and gets everything anew when it is back"""
READ_BYTES = 1 << 16
_LENGTH = 4


class Hello(msgspec.Struct, tag="hello", array_like=True):
    """The first message of both sides."""

    version: int
    router: str
    """name of this run of this router"""
    nonce: bytes


class Proof(msgspec.Struct, tag="proof", array_like=True):
    """The second one."""

    mac: bytes


class Told(msgspec.Struct, tag="told", array_like=True):
    """Pages of the sender's books."""

    number: int
    """grows with each telling"""
    every: bool
    """these are all"""
    waits_s: float | None
    """for how long its oldest queued request waits"""
    pages: dict[str, Page]


class Scraped(msgspec.Struct, tag="scraped", array_like=True):
    """What an engine said of itself when the sender asked."""

    replica: str
    age_s: float
    signals: Signals
    models: tuple[str, ...]
    adapters: tuple[str, ...] = ()
    """those of `models` that are LoRA adapters"""


class Stored(msgspec.Struct, tag="stored", array_like=True):
    """Stored responses, and the replicas that made them."""

    responses: dict[str, str]


News = Told | Scraped | Stored
_DECODER = msgspec.msgpack.Decoder(Hello | Proof | Told | Scraped | Stored)
_ENCODER = msgspec.msgpack.Encoder()


def framed(message: Hello | Proof | News) -> bytes:
    """Return the bytes of one message."""
    body = _ENCODER.encode(message)
    return len(body).to_bytes(_LENGTH, "big") + body


class Host(Protocol):
    """Who holds the links (`sharing.Sharing`)."""

    name: str

    def token(self) -> bytes | None:
        """The shared secret; None: there is none now, and nobody is let in."""

    def ready(self, link: "Link") -> None:
        """The peer has proved itself."""

    def heard(self, link: "Link", news: Sequence[News]) -> None:
        """It tells something, in this order."""

    def lost(self, link: "Link", why: str) -> None:
        """The stream is over."""


class Link(asyncio.Protocol):
    """One connection to a peer."""

    def __init__(self, host: Host, now: Callable[[], float], *, dialed: bool) -> None:
        self._host = host
        self._now = now
        self.dialed = dialed
        self.peer = ""
        """the other router's name, once it said it"""
        self.proved = False
        self.here, self.there = "", ""
        """IP addresses of both ends; empty on a Unix socket"""
        self.heard_at = now()
        """when it last said something; of a stranger, who has so long to prove itself, when it came"""
        self.closed = asyncio.get_running_loop().create_future()
        self._nonce = secrets.token_bytes(16)
        self._their_nonce = b""
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._resting = False
        self._socket: socket.socket | None = None
        """the transport's once more, to be read while this link rests"""
        self._why = "closed by the peer"

    def send(self, data: bytes) -> bool:
        """Send framed messages; return whether the peer keeps up: one that does not is dropped."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return True
        if transport.get_write_buffer_size() + len(data) > BUFFER_BYTES:
            self.drop("it reads too slowly")
            return False
        transport.write(data)
        return True

    def drop(self, why: str) -> None:
        """End the stream at once."""
        if self._transport is not None and not self._transport.is_closing():
            self._why = why
            self._transport.abort()

    def rest(self) -> None:
        """From now on only `take` reads what comes."""
        if self._resting or self._transport is None or self.closing:
            return
        if self._socket is None:
            try:
                self._socket = socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
            except OSError:
                return  # no file descriptor is left: it goes on as it was
        self._transport.pause_reading()
        self._resting = True

    def attend(self) -> None:
        """From now on what comes is read at once."""
        if self._resting and self._transport is not None and not self.closing:
            self._transport.resume_reading()
            self._resting = False

    def take(self) -> None:
        """Read what has come while it rests."""
        while self._resting and self._socket is not None and not self.closing:
            try:
                data = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                self.drop(str(error))
                return
            if not data:
                self.drop(self._why)
                return
            self.data_received(data)
            if len(data) < READ_BYTES:
                return

    # --- asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)
        self.heard_at = self._now()
        self.here, self.there = _ip(transport.get_extra_info("sockname")), _ip(transport.get_extra_info("peername"))
        self.send(framed(Hello(VERSION, self._host.name, self._nonce)))

    def data_received(self, data: bytes) -> None:
        """Take whole messages."""
        if self.proved:
            self.heard_at = self._now()
        buffer, news = self._buffer, list[News]()
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH:
            end = start + _LENGTH + int.from_bytes(buffer[start : start + _LENGTH], "big")
            if end - start > (MESSAGE_BYTES if self.proved else GREETING_BYTES):
                self.drop("its message is too long")
                return
            if len(buffer) < end:
                break
            try:
                message = _DECODER.decode(bytes(buffer[start + _LENGTH : end]))
            except UNREADABLE as error:
                self.drop(f"its message cannot be read: {error}")
                return
            start = end
            if self.proved and isinstance(message, News):
                news.append(message)
            else:
                self._take(message)
            if self.closing:
                return
        del buffer[:start]
        if news:
            self._host.heard(self, news)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the host."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if not self.closed.done():
            self.closed.set_result(None)
        self._host.lost(self, str(exc) if exc else self._why)

    @property
    def closing(self) -> bool:
        """Whether the stream is over, or about to be."""
        return self._transport is None or self._transport.is_closing()

    # --- inside

    def _take(self, message: Hello | Proof | News) -> None:
        if isinstance(message, Hello) and not self._their_nonce:
            self._greeted(message)
        elif isinstance(message, Proof) and self._their_nonce and not self.proved:
            self._check(message)
        else:
            self.drop("its message comes out of turn")

    def _greeted(self, hello: Hello) -> None:
        self.peer, self._their_nonce = hello.router, hello.nonce
        token = self._host.token()
        if hello.router == self._host.name:
            self.drop("it is this router itself")
        elif hello.version != VERSION:
            self.drop(f"it speaks version {hello.version}, not {VERSION}")
        elif len(hello.nonce) < len(self._nonce):
            self.drop("its nonce is too short")
        elif token is None:
            self.drop("there is no token")
        else:
            self.send(framed(Proof(self._mac(token, ours=True))))

    def _check(self, proof: Proof) -> None:
        token = self._host.token()
        if token is None or not hmac.compare_digest(proof.mac, self._mac(token, ours=False)):
            self.drop("it does not know the token")
            return
        self.proved, self.heard_at = True, self._now()
        self._host.ready(self)

    def _mac(self, token: bytes, *, ours: bool) -> bytes:
        """What the prover must show: bound to both nonces, its name, and its end of the stream, so that none can be sent back."""
        name = self._host.name if ours else self.peer
        proving, checking = (self._nonce, self._their_nonce) if ours else (self._their_nonce, self._nonce)
        end = b"dialed" if self.dialed == ours else b"accepted"
        return hmac.digest(token, b"\0".join((b"halffull peer", end, name.encode(), proving, checking)), "sha256")


def _ip(address: object) -> str:
    return str(address[0]) if isinstance(address, tuple) else ""
