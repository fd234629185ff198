"""What the scenarios are played on: engines, routers and `halffull up` as processes of this machine.

Used by the scenarios. Everything started here is gone when its context ends.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from chaos.questions import CONTEXT, MODEL
from halffull.api.router_config import parse_router_config

START_S = 60.0
LOOK_S = 0.05
ENGINE = ("--max-num-seqs", "64", "--kv-tokens", "60000", "--max-model-len", str(CONTEXT))


class LeftOutError(Exception):
    """A scenario cannot be played here; says why."""


@dataclass
class Child:
    """A command of halffull that serves."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    admin_port: int | None
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://{self.host}:{self.admin_port}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, within_s: float = START_S) -> int:
        """Return its status. Raises subprocess.TimeoutExpired."""
        return await asyncio.to_thread(self.process.wait, within_s)


class Stage:
    """Starts processes in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count()

    @asynccontextmanager
    async def child(
        self, command: str, *arguments: str, prefix: tuple[str, ...] = (), program: tuple[str, ...] = ("-m", "halffull"),
        output: Path | None = None, host: str = "127.0.0.1", begun: Callable[[int], None] = lambda _: None,
    ) -> AsyncIterator[Child]:  # fmt: skip
        """Run `halffull COMMAND`; return once it serves. Killed at the end, if it has not ended.

        `prefix`: what it is run by; `begun` is called with its process id at once.
        """
        name = f"{command}-{next(self._numbers)}"
        ready, log = self.folder / f"{name}.ready", self.folder / f"{name}.log"
        where = ["--host", host, "--port", "0", *(["--admin-port", "0"] if command == "router" else [])]
        line = [*prefix, sys.executable, *program, command, *where, "--ready-file", str(ready), *arguments]
        with (output or log).open("wb") as out:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=out)  # noqa: ASYNC220 (short)
        try:
            begun(process.pid)
            async with asyncio.timeout(START_S):
                while not ready.exists():
                    if process.poll() is not None:
                        raise RuntimeError(f"{name} ended: {log.read_text() if log.exists() else ''}")
                    await asyncio.sleep(LOOK_S)
            ports = json.loads(ready.read_text())
            yield Child(process, log, ports["port"], ports.get("adminPort"), host)
        finally:
            process.kill()
            process.wait()

    @asynccontextmanager
    async def up(self, **spec: Any) -> AsyncIterator["Up"]:
        """Run `halffull up` with one ModelDeployment."""
        file, log = self.folder / "up.yaml", self.folder / "up.log"
        up = Up(file, log)
        up.edit(**spec)
        command = [sys.executable, "-m", "halffull", "up", str(file), "--port", "0", "--admin-port", "0"]
        with log.open("wb") as out:
            up.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)  # noqa: ASYNC220
        try:
            served = await up.said(r"model \S+ at (\S+)/v1, .* admin (\S+)\n")
            up.url, up.admin_url = served[1], served[2]
            yield up
            await up.end(signal.SIGTERM)
        finally:
            up.process.kill()
            up.process.wait()


@dataclass
class Up:
    """`halffull up`, its file and what it says."""

    file: Path
    log: Path
    spec: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    admin_url: str = ""
    process: subprocess.Popen[bytes] = field(init=False)

    def edit(self, **spec: Any) -> None:
        """Change fields of the ModelDeployment's spec, by replacing the file."""
        engine = {"type": "simulated", "template": {"args": list(ENGINE)}}
        self.spec = {"model": MODEL, "engine": engine, "scheduling": {"policy": "sal"}} | self.spec | spec
        self.write(yaml.safe_dump(document(self.spec)))

    def write(self, text: str) -> None:
        """Replace the file."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    async def said(self, pattern: str, within_s: float = START_S, times: int = 1) -> re.Match[str]:
        """Wait until `halffull up` has said it so many times; return the last match. Raises TimeoutError with all it said."""
        found: list[re.Match[str]] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while len(found) < times and self.process.poll() is None:
                    await asyncio.sleep(LOOK_S)
                    found = list(re.finditer(pattern, self.log.read_text()))
        if len(found) < times:
            raise TimeoutError(f"never said {pattern!r}: {self.log.read_text()}")
        return found[-1]

    async def end(self, number: signal.Signals) -> int:
        """Send a signal; return the status with which it ends."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, START_S)

    def engines(self) -> dict[str, int]:
        """Process ids of the engines by `host:port`."""
        found = {}
        for pid, arguments in children(self.process.pid).items():
            if "engine" in arguments:
                found[f"127.0.0.1:{arguments[arguments.index('--port') + 1]}"] = pid
        return found

    def router(self) -> int:
        """Process id of the router."""
        return next(pid for pid, arguments in children(self.process.pid).items() if "router" in arguments)


def document(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ModelDeployment."""
    return {
        "apiVersion": "halffull.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "llama"},
        "spec": dict(spec),
    }


def children(parent: int) -> dict[int, list[str]]:
    """Arguments of the children of a process."""
    found = {}
    for task in Path(f"/proc/{parent}/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            with suppress(OSError):  # it has ended meanwhile
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return found


def configured(path: Path, endpoints: list[str], **parts: Any) -> str:
    """Write a RouterConfig in one step; return its hash."""
    parts = {"scheduling": {"policy": "sal"}, "router": {"drain": {"acceptSeconds": 2, "seconds": 60}}} | parts
    base = {"modelDeployment": {"name": MODEL}, "model": MODEL, "engine": {"type": "simulated", "endpoints": endpoints}}
    config = parse_router_config(json.dumps(base | parts))[0].seal()
    fresh = path.with_suffix(".new")
    fresh.write_text(config.to_json())
    fresh.replace(path)
    return config.hash


async def page(admin_url: str, path: str = "/status") -> Any:
    """Return a page of an admin port: `/status` decoded, others as text. Raises aiohttp.ClientError or TimeoutError."""
    timeout = aiohttp.ClientTimeout(total=5.0)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(admin_url + path) as answer:
        return await answer.json() if path == "/status" else await answer.text()


async def until(admin_url: str, condition: Callable[[Any], object], within_s: float = START_S) -> Any:
    """Return `/status` once the condition holds for it. Raises TimeoutError."""
    status: Any = None
    try:
        async with asyncio.timeout(within_s):
            while True:
                with suppress(aiohttp.ClientError):
                    status = await page(admin_url)
                    if condition(status):
                        return status
                await asyncio.sleep(LOOK_S)
    except TimeoutError as error:
        raise TimeoutError(f"not so after {within_s:g} s: {json.dumps(status)}") from error


def states(status: Any) -> dict[str, str]:
    """State of each replica."""
    return {replica["name"]: replica["state"] for replica in status["replicas"]}


def ready(status: Any, least: int) -> bool:
    """Whether so many replicas are."""
    return list(states(status).values()).count("Ready") >= least


@contextmanager
def stopped(pid: int) -> Any:
    """Within this context the process stands still, with its connections open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
