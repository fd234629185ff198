"""Simulated engines for tests: one in the test's own event loop, or as a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from aiohttp import web

from halffull.sim.profiles import PROFILES
from halffull.sim.server import EngineServer, Settings

FAST = 0.05
"""real seconds per second of the model: a step takes about a millisecond"""


@dataclass
class Engine:
    """An engine in this event loop."""

    url: str
    server: EngineServer
    runner: web.AppRunner


@asynccontextmanager
async def simulated_engine(*, kv_tokens=400_000, max_sequences=256, **settings) -> AsyncIterator[Engine]:
    """Serve an engine of model `tiny` with a context of 4096 tokens on a free port."""
    profile = replace(PROFILES["a100"], kv_tokens=kv_tokens, max_sequences=max_sequences)
    base = Settings(model="./tiny", served_names=("tiny",), profile=profile, scale=FAST, max_model_len=4096)
    server = EngineServer(replace(base, **settings))
    runner = web.AppRunner(server.app(), handler_cancellation=True, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Engine(f"http://127.0.0.1:{runner.addresses[0][1]}", server, runner)
    finally:
        server.pace.abort()
        await runner.cleanup()


@dataclass
class EngineProcess:
    """`halffull engine` as a process."""

    process: subprocess.Popen
    port: int

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def engine_process(folder, *options) -> Iterator[EngineProcess]:
    """Run `halffull engine` with these options on a free port; end it if the test has not."""
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "halffull", "engine", "--host", "127.0.0.1", "--port", "0", "--model", "tiny"]
    process = subprocess.Popen([*command, "--ready-file", str(ready), *options], stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None, "the engine ended before it was ready"
            assert time.monotonic() < deadline, "the engine is not ready after 60 s"
            time.sleep(0.02)
        yield EngineProcess(process, json.loads(ready.read_text())["port"])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
        process.stdout.close()
