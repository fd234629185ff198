"""What is under way on a client's connection when a router is told to stop."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from processes import Running, running
from routers import address, admin, ready_replicas, write_config
from scripted_engines import parse, post

BODY = b'{"model":"m","prompt":"x"}'
ANSWER = b'{"choices":[]}'


@pytest.fixture
async def router(tmp_path: Path, eventually: Callable[..., None]) -> AsyncIterator[Running]:
    """A router before one engine."""

    async def healthy(_: web.Request) -> web.Response:
        return web.Response()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=ANSWER, content_type="application/json")

    application = web.Application()
    application.router.add_get("/health", healthy)
    application.router.add_post("/v1/completions", answer)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    write_config(tmp_path / "router.json", [f"127.0.0.1:{runner.addresses[0][1]}"])
    with running(tmp_path / "router", "router", "--config", str(tmp_path / "router.json")) as process:
        await asyncio.to_thread(eventually, lambda: ready_replicas(process) == 1)
        yield process
    await runner.cleanup()


async def told_to_stop(router: Running) -> None:
    """Return while it goes on for what is under way."""
    router.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        await asyncio.to_thread(router.process.wait, 1)


async def test_a_request_that_is_half_sent_is_served(router: Running, eventually: Callable[..., None]) -> None:
    reader, writer = await asyncio.open_connection(*address(router).split(":"))
    request = post(BODY, "/v1/completions")
    writer.write(request[:-1])
    await asyncio.to_thread(eventually, lambda: "client_connections 1.0" in admin(router, "/metrics"))
    await told_to_stop(router)
    writer.write(request[-1:])
    assert parse(await reader.read())[::2] == (200, ANSWER)
    assert await asyncio.to_thread(router.process.wait, 30) == 0
    writer.close()
