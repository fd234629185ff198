"""Real vLLMs that tests may stop, kill and configure, and a router before them.

`HALFFULL_VLLM_SERVE` names a command that serves a model `tiny`: `serve PORT [options of vllm serve]`. A start takes half a minute,
so an engine that a test leaves alive serves the next one that asks for the same options.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from processes import Running, running
from routers import ready_replicas, status, write_config

START_S = 300.0
MOST = 3
"""engines at a time"""
SOURCE = Path(__file__).parents[2] / "operator"
COMMON = ("--max-num-seqs", "4", "--max-num-queued-reqs", "12")
Start = Callable[..., list["Vllm"]]


@dataclass(eq=False)
class Vllm:
    """One vLLM: its processes are a group of their own."""

    process: subprocess.Popen[bytes]
    port: int
    options: tuple[str, ...]
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes."""
        os.killpg(self.process.pid, number)

    def terminate(self) -> None:
        """As a kubelet does: to the first process alone."""
        self.process.terminate()

    def await_health(self, deadline: float) -> None:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/health", timeout=5):
                return
            assert self.alive, f"vLLM ended: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"vLLM is not ready: {self.log.read_text()[-3000:]}"
            time.sleep(0.3)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()


@dataclass
class Pool:
    """Starts engines, and lends those that still live."""

    command: str
    folder: Path
    engines: list[Vllm] = field(default_factory=list)
    started: int = 0

    def lend(self, *wanted: tuple[str, ...]) -> list[Vllm]:
        """One engine for each tuple of options, ready to serve."""
        self.engines = [engine for engine in self.engines if engine.alive]
        found: list[Vllm] = []
        for options in wanted:
            free = (e for e in self.engines if e.options == options and e not in found)
            found.append(next(free, None) or self._start(options, found))
        for engine in found:
            engine.await_health(time.monotonic() + START_S)
        return found

    def _start(self, options: tuple[str, ...], kept: list[Vllm]) -> Vllm:
        others = [engine for engine in self.engines if engine not in kept]
        while len(self.engines) >= MOST and others:
            self.engines.remove(others[0])
            others.pop(0).end()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.started += 1
        log = self.folder / f"vllm-{self.started}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.command, str(port), *COMMON, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"PYTHONPATH": str(SOURCE), "VLLM_SERVER_DEV_MODE": "1"},
                start_new_session=True,
            )
        engine = Vllm(process, port, options, log)
        self.engines.append(engine)
        return engine


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    command = os.environ.get("HALFFULL_VLLM_SERVE")
    if not command:
        pytest.skip("HALFFULL_VLLM_SERVE names no command that serves a real vLLM")
    pool = Pool(command, tmp_path_factory.mktemp("vllm"))
    yield pool
    for engine in pool.engines:
        engine.end()


@pytest.fixture
def start_router(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts `halffull router` before engines, with further parts of its configuration."""
    with ExitStack() as stack:

        def start(engines: list[Vllm], engine: dict[str, Any] | None = None, **parts: Any) -> Running:
            file = tmp_path / "config.json"
            addresses = [vllm.address for vllm in engines]
            target = {"type": "vllm", "endpoints": addresses, "limits": {"maxSequences": 4}} | (engine or {})
            write_config(file, addresses, **{"model": "tiny", "engine": target} | parts)
            router = stack.enter_context(running(tmp_path / "router", "router", "--config", str(file)))
            deadline = time.monotonic() + 60
            while ready_replicas(router) < len(engines):
                assert time.monotonic() < deadline, status(router)
                time.sleep(0.05)
            return router

        yield start
        if (tmp_path / "router" / "log").exists():
            sys.stdout.write((tmp_path / "router" / "log").read_text())  # shown where the test fails
