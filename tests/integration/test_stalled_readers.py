"""Clients that ask for long answers and do not read them: the router's memory stays small, and the engine waits."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from processes import running
from routers import ready_replicas, write_config

READERS = 200
ANSWER_BYTES = 64 << 20
"""of each answer: 12.5 GiB in all"""
MOST_BYTES_PER_READER = 512 << 10
EVENT = b"data: " + b"x" * 16_000 + b"\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ASK = b'{"model":"m","messages":[{"role":"user","content":"hello"}],"stream":true}'

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


class Engine:
    """Streams as fast as it may."""

    def __init__(self) -> None:
        self.sent = 0
        self.started = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"POST"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            else:
                self.started += 1
                writer.write(HEAD)
                for _ in range(ANSWER_BYTES // len(EVENT)):
                    writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
                    await writer.drain()
                    self.sent += len(EVENT)
        writer.close()


async def stalled(port: int) -> socket.socket:
    """Ask, and read nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    await loop.sock_sendall(client, head % len(ASK) + ASK)
    return client


async def rest(engine: Engine) -> None:
    """Wait until nothing moves any more."""
    async with asyncio.timeout(90):
        before = -1
        while engine.started < READERS or before != engine.sent:
            before = engine.sent
            await asyncio.sleep(0.5)


async def test_the_memory_of_the_router_stays_small(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    engine, config = Engine(), tmp_path / "router.json"
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
    write_config(
        config,
        [f"127.0.0.1:{server.sockets[0].getsockname()[1]}"],
        scheduling={"policy": "round-robin", "gate": "none"},
        router={"drain": {"acceptSeconds": 0, "seconds": 1}},
    )
    with running(tmp_path / "router", "router", "--config", str(config)) as router:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(ready_replicas, router):
                await asyncio.sleep(0.05)
        before = resident_bytes(router.process.pid)
        clients = [await stalled(router.port) for _ in range(READERS)]
        await rest(engine)
        growth = resident_bytes(router.process.pid) - before
        record_property("growth_bytes", growth)
        print(f"{READERS} stalled readers: {growth / 2**20:.0f} MiB, sent {engine.sent / 2**20:.0f} MiB")  # noqa: T201
        assert engine.sent < READERS * ANSWER_BYTES / 4, "the engine was not held back"
        assert growth < READERS * MOST_BYTES_PER_READER
        for client in clients:
            client.close()
        await asyncio.sleep(0)
    server.close()
