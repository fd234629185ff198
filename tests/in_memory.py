"""The data path without sockets: real proxy, clients, connections to engines; only the transports are lists of bytes.

For tests that send very many streams. An engine here answers each request with the next bytes of its script.
"""

import asyncio
import random
from collections.abc import Callable

import h11

from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.core.gate import GATES, LimitParameters
from halffull.core.limits import Limits
from halffull.engines.catalog import ENGINES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES
from halffull.router.http.client import Client, ClientLimits
from halffull.router.http.upstream import Pool, Upstream
from halffull.router.proxy import Proxy, Settings

ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{"choices":[]}'


class Transport(asyncio.Transport):
    """Keeps what is written; closes at once."""

    def __init__(self, lost: Callable[[Exception | None], None], wrote: Callable[[bytes], None] | None = None) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.closed = False
        self.half_closed = False
        self.unsent = 0
        self._lost = lost
        self._wrote = wrote

    def write(self, data: bytes) -> None:
        assert not self.half_closed, "written after the end"
        if not self.closed:
            self.written.append(bytes(data))
            if self._wrote is not None:
                self._wrote(data)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


class ScriptedPool(Pool):
    """Connections to an engine that answers from `script`; the last entry for ever. `None` in it: break off."""

    def __init__(self, script: list[bytes | None]) -> None:
        super().__init__("engine", 1, lambda: 0.0)
        self.script = script
        self.connections: list[tuple[Upstream, Transport]] = []
        self.pieces: Callable[[bytes], list[bytes]] = lambda data: [data]
        """how an answer is cut into reads"""
        self.ends: Callable[[bytes], bool] = lambda _: False
        """after which answers the engine closes"""

    async def connect(self, limit_s: float) -> Upstream:
        upstream = Upstream(self, lambda: 0.0)
        transport = Transport(upstream.connection_lost, lambda _: self._answer(upstream, transport))
        upstream.connection_made(transport)
        self.connections.append((upstream, transport))
        return upstream

    def received(self) -> list[bytes]:
        """What each connection got."""
        return [b"".join(transport.written) for _, transport in self.connections]

    def _answer(self, upstream: Upstream, transport: Transport) -> None:
        if not whole(transport.written[-1]) and not whole(b"".join(transport.written[-2:])):
            return
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        loop = asyncio.get_running_loop()
        if answer is None:
            loop.call_soon(transport.close)
            return
        for piece in self.pieces(answer):
            loop.call_soon(self._deliver, upstream, transport, piece)
        if self.ends(answer):
            loop.call_soon(upstream.eof_received)
            loop.call_soon(transport.close)

    @staticmethod
    def _deliver(upstream: Upstream, transport: Transport, piece: bytes) -> None:
        if not transport.closed:
            upstream.data_received(piece)


def whole(request: bytes) -> bool:
    """Whether these bytes, which the router wrote, are a whole request."""
    head, end, body = request.partition(b"\r\n\r\n")
    return bool(end) and len(body) == int(head.rpartition(b"content-length: ")[2])


class World:
    """A proxy before one scripted engine."""

    def __init__(
        self, *script: bytes | None, clients: ClientLimits | None = None, limits: Limits | None = None
    ) -> None:
        self.now = 0.0
        dispatcher = Dispatcher(
            POLICIES["round-robin"].make(),
            ORDERINGS["fcfs"].make(),
            GATES["limit"].make(LimitParameters(100)),
            random.Random(1),
            limits or Limits(attempts=1),
        )
        settings = Settings("m", clients=clients or ClientLimits())
        self.proxy = Proxy(dispatcher, ENGINES["vllm"], settings, lambda: self.now, "t-")
        self.replica = Replica("r0", "engine", 1)
        self.proxy.add(self.replica)
        self.engine = ScriptedPool(list(script) or [ANSWER])
        self.proxy.engines._pools[self.replica] = self.engine

    def connect(self) -> tuple[Client, Transport]:
        """Open a client connection."""
        client = self.proxy.protocol()
        transport = Transport(client.connection_lost)
        client.connection_made(transport)
        return client, transport

    async def send(self, *pieces: bytes) -> bytes:
        """Send these reads on a new connection, let everything settle, return the answers."""
        client, transport = self.connect()
        for piece in pieces:
            if not transport.closed:
                client.data_received(piece)
        await self.settle()
        answers = b"".join(transport.written)
        transport.close()
        await self.settle()
        return answers

    async def settle(self, most: int | None = None) -> None:
        """Let callbacks and connecting tasks run, and then time pass, until nothing is on its way.

        Fails where something still is after minutes, unless `most` rounds are all that is wanted.
        """
        for _ in range(12):
            await asyncio.sleep(0)
        for _ in range(most or 1000):
            if not self.proxy.passages:
                return
            self.now += 0.2
            self.proxy.tick()
            await asyncio.sleep(0)
        assert most, "a request hangs"

    def requests(self) -> list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]]:
        """What the engine got, as h11 reads it: method, target, headers, body. Fails where h11 refuses it."""
        return [request for received in self.engine.received() for request in parse_requests(received)[0]]

    def leaks(self) -> list[str]:
        """What is left over once every client has gone."""
        books = self.replica.in_flight, self.replica.prefill_tokens, self.replica.decode_tokens
        left = {
            "clients": self.proxy.clients,
            "passages": self.proxy.passages,
            "queue": len(self.proxy.dispatcher.queue),
            "books": any(books),
        }
        return [name for name, there in left.items() if there]


Parsed = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]


def parse_requests(data: bytes) -> tuple[list[Parsed], str]:
    """Return the requests that h11 sees in a stream, and why it stopped: `more`, `close`, or its error."""
    found: list[Parsed] = []
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return found, "more"
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                found.append(
                    (
                        bytes(request.method),
                        bytes(request.target),
                        [(bytes(n), bytes(v)) for n, v in request.headers],
                        body,
                    )
                )
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    return found, "close"
                connection.start_next_cycle()
            else:
                return found, "close"
    except h11.RemoteProtocolError as error:
        return found, str(error)


def parse_statuses(data: bytes) -> list[int]:
    """Return the status of each answer in a stream of whole answers, none to HEAD, 1xx left out; h11 must accept each."""
    found: list[int] = []
    rest = data
    while rest:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(rest)
        while True:
            event = connection.next_event()
            assert event is not h11.NEED_DATA, f"an answer is not whole: {rest!r}"
            if isinstance(event, h11.Response):
                found.append(event.status_code)
            elif isinstance(event, h11.EndOfMessage):
                break
        rest = connection.trailing_data[0]
    return found


def parse_body(data: bytes) -> bytes:
    """Return the body of the first answer."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            body += bytes(event.data)
    return body
