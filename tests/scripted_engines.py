"""Scripted engines behind real sockets, and a proxy before them; used by the tests of the data path."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.core.gate import GATES, LimitParameters
from halffull.core.limits import Limits
from halffull.engines.catalog import ENGINES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES
from halffull.router.http.client import ClientLimits
from halffull.router.proxy import Proxy, Settings

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hello there"}],"stream":%b}'
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":" x"},"finish_reason":null}]}\n\n'
DONE = b"data: [DONE]\n\n"
BUSY = b'data: {"error": {"message": "busy", "type": "Service Unavailable", "param": null, "code": 503}}\n\n'
ABORT = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}\n\n'
DEAD = b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "code": 500}}\n\n'
PLAIN = b'{"id":"c","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":2}}'

Answer = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def whole(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> Answer:
    async def answer(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n" % (
            status,
            extra,
            len(body),
        )
        writer.write(head + body)

    return answer


def stream(*events: bytes, end: bool | None = True, gap: asyncio.Event | None = None) -> Answer:
    async def answer(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for number, event in enumerate(events):
            if gap is not None and number == 2:
                await gap.wait()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
        if end is None:
            return
        if end:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    return answer


async def hang(_: bytes, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await reader.read()
    raise ConnectionError


async def start_then_hang(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await stream(ROLE, TOKEN, end=None)(request, reader, writer)
    await hang(request, reader, writer)


async def reset(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


class Engine:
    """A scripted engine: answers each request with the next of its script, the last one for ever."""

    def __init__(self, *script: Answer) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.closed = 0
        """connections that the router closed"""
        self.port = 0
        self.tasks: list[asyncio.Task[None] | None] = []

    async def close(self) -> None:
        """End its connections."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                await answer(request, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed += 1
        finally:
            writer.close()


class World:
    """A proxy before some engines."""

    def __init__(self, proxy: Proxy, port: int, engines: list[Engine]) -> None:
        self.proxy = proxy
        self.port = port
        self.engines = engines
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, read until the router closes."""
        reader, writer = await self.connect()
        writer.write(data)
        got = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return got

    async def post(
        self, body: bytes, path: str = "/v1/chat/completions", extra: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        got = await self.raw(post(body, path, extra + b"connection: close\r\n"))
        return parse(got)


def post(body: bytes, path: str = "/v1/chat/completions", extra: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + extra + b"\r\n" + body


def parse(got: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    if headers.get("transfer-encoding") == "chunked":
        data, rest = b"", body
        while True:
            size, _, rest = rest.partition(b"\r\n")
            assert size, "the chunked body was cut"
            if int(size, 16) == 0:
                break
            data, rest = data + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        body = data
    return int(lines[0].split()[1]), headers, body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def world(
    *engines: Engine,
    limits: Limits | None = None,
    gate: int = 100,
    clients: ClientLimits | None = None,
    policy: str = "round-robin",
    resume: bool = False,
) -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    dispatcher = Dispatcher(
        POLICIES[policy].make(),
        ORDERINGS["fcfs"].make(),
        GATES["limit"].make(LimitParameters(gate)),
        random.Random(1),
        limits or Limits(),
    )
    settings = Settings("m", frozenset({"alias"}), clients=clients or ClientLimits(), resume=resume)
    proxy = Proxy(dispatcher, ENGINES["vllm"], settings, loop.time, "t-")
    servers = []
    for number, engine in enumerate(engines):
        server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
        engine.port = server.sockets[0].getsockname()[1]
        servers.append(server)
        proxy.add(Replica(f"r{number}", "127.0.0.1", engine.port))
    port = await proxy.listen("127.0.0.1", 0)

    async def tick() -> None:
        while True:
            proxy.tick()
            await asyncio.sleep(0.02)

    ticking = loop.create_task(tick())
    made = World(proxy, port, list(engines))
    try:
        yield made
        await until(lambda: not proxy.passages and not proxy.dispatcher.queue)
        for replica in dispatcher.books.replicas.values():
            assert (replica.in_flight, replica.prefill_tokens, replica.decode_tokens) == (0, 0, 0)
    finally:
        ticking.cancel()
        proxy.stop_listening()
        for client in list(proxy.clients):
            client.abort()
        proxy.engines.close()
        for server in servers:
            server.close()
        for engine in engines:
            await engine.close()
        for writer in made.writers:
            writer.close()
        await until(lambda: not proxy.clients)
