"""Runs halffull's commands as real processes on free ports of loopback. Callers: fixtures of tests/clients and others."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Running:
    """A server that said it is ready."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    admin_port: int | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"


@contextlib.contextmanager
def running(folder: Path, command: str, *arguments: str) -> Iterator[Running]:
    """Run `halffull COMMAND ARGUMENTS` until the context ends; it must then end by itself at SIGTERM, with status 0.

    The folder, which is made here, holds its log and its ready file.
    """
    folder.mkdir()
    ready, log = folder / "ready.json", folder / "log"
    options = ["--host", "127.0.0.1", "--port", "0", "--ready-file", str(ready)]
    options += ["--admin-port", "0"] if command == "router" else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "halffull", command, *options, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert process.poll() is None, f"halffull {command} ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"halffull {command} is not ready: {log.read_text()}"
            time.sleep(0.02)
        ports = json.loads(ready.read_text())
        yield Running(process, log, ports["port"], ports.get("adminPort"))
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0, f"halffull {command}: {log.read_text()}"
    finally:
        process.kill()
        process.wait()
