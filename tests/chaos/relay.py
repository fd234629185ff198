"""Stands before an engine, passes everything on, and lies where a scenario says so. Used by scenarios of refusals and metrics.

Reads only as much HTTP as that needs: the router writes one request at a time, each beginning with its method.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from chaos.questions import MODEL
from chaos.stage import ENGINE, Stage, Up, ready, until

BUSY = b'{"error":{"message":"The engine is currently busy.","type":"Service Unavailable","param":null,"code":503}}'
STATUS_503 = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BUSY),
    BUSY,
)
EVENT = b"data: " + BUSY + b"\n\ndata: [DONE]\n\n"
EVENT_503 = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT)
)

Answer = Callable[[bytes], bytes | None]
"""what to answer instead of the engine, by the request; None: nothing, let it answer"""


def text(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Return an answer of plain text."""
    return b"HTTP/1.1 %b\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: %d\r\n\r\n%b" % (
        status, len(body), body,
    )  # fmt: skip


@dataclass
class Relay:
    """One of them."""

    target: int
    """port of the engine"""
    answer: Answer | None = None
    refused: int = 0
    """requests that were answered here"""
    port: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a router."""
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, back}
        copying = asyncio.create_task(_copy(there, writer))
        try:
            while data := await reader.read(1 << 16):
                said = self.answer(data) if self.answer and data.startswith((b"GET ", b"POST ")) else None
                if said is None:
                    back.write(data)
                    await back.drain()
                    continue
                self.refused += 1
                length = int((data.lower().partition(b"content-length: ")[2] or b"0").partition(b"\r\n")[0])
                await _rest(reader, length - len(data.partition(b"\r\n\r\n")[2]))
                writer.write(said)
        except OSError:
            pass
        finally:
            for end in (writer, back):
                end.transport.abort()
            self._open -= {writer, back}
            with suppress(OSError):
                await copying


async def _rest(reader: asyncio.StreamReader, left: int) -> None:
    while left > 0:
        left -= len(await reader.read(left))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def up_behind_relays(stage: Stage, engines: int) -> AsyncIterator[tuple[Up, list[Relay]]]:
    """Run `halffull up` with engines at fixed addresses, each behind one of them; return once all are ready."""
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(stage.child("engine", "--model", MODEL, *ENGINE)) for _ in range(engines)
        ]
        before = await stack.enter_async_context(relays([engine.port for engine in made]))
        endpoints = [relay.address for relay in before]
        up = await stack.enter_async_context(stage.up(engine={"type": "simulated", "endpoints": endpoints}))
        await until(up.admin_url, lambda status: ready(status, engines))
        yield up, before


@asynccontextmanager
async def relays(targets: Sequence[int]) -> AsyncIterator[list[Relay]]:
    """Put one before each of these ports."""
    async with AsyncExitStack() as stack:
        found = []
        for target in targets:
            relay = Relay(target)
            server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
            stack.callback(server.close)
            relay.port = server.sockets[0].getsockname()[1]
            found.append(relay)
        yield found
        for relay in found:
            for writer in relay._open.copy():
                writer.transport.abort()
