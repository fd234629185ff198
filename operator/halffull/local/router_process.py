"""The router process of one ModelDeployment: its configuration file, its ports and its `/status`. Called by `deployment`."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp

from halffull.api.router_config import RouterConfig
from halffull.local.process import Guard, Process, Say

STOP_S = 10.0
"""from the end of the drain to SIGKILL"""
LOOK_S = 0.1


class RouterProcess:
    """`halffull router --config FILE`, kept running on the same ports."""

    def __init__(
        self,
        name: str,
        *,
        host: str,
        port: int,
        admin_port: int,
        folder: Path,
        session: aiohttp.ClientSession,
        guard: Guard,
        say: Say,
        record: Path | None = None,
    ) -> None:
        """`folder` holds its files; a port 0 is a free one, which it keeps; `record`: where it records requests."""
        self._host = host
        self.port = port
        self.admin_port = admin_port
        self._config = folder / "router.json"
        self._folder = folder
        self._ready = folder / "ready.json"
        self._record = record
        self._session = session
        self._process = Process(f"{name} router", self._command, self._serves, guard=guard, say=say)

    @property
    def url(self) -> str:
        """Where clients send requests."""
        return f"http://{self._reachable}:{self.port}"

    @property
    def admin_url(self) -> str:
        """The admin port."""
        return f"http://{self._reachable}:{self.admin_port}"

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid

    def publish(self, config: RouterConfig) -> None:
        """Write the configuration; the router never sees a part of it."""
        fresh = self._config.with_suffix(".new")
        fresh.write_text(config.to_json(), encoding="utf-8")
        fresh.replace(self._config)

    async def start(self) -> None:
        """Return once it serves; raises StartError."""
        await self._process.start()

    async def stop(self, drain_s: float) -> None:
        """Let open answers end, for at most `drain_s`."""
        await self._process.stop(drain_s + STOP_S)

    async def status(self) -> dict[str, Any] | None:
        """The document of `/status`; None while it cannot be had."""
        try:
            async with self._session.get(f"{self.admin_url}/status") as response:
                document: dict[str, Any] = await response.json()
                return document if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def applied(self, config: RouterConfig, limit_s: float) -> str | None:
        """Wait until the router goes by `config`; None once it does, else why not, after at most `limit_s`."""
        error: str | None = "its router does not answer"
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    status = await self.status()
                    if status and status["config"]["hash"] == config.hash:
                        return None
                    if status:
                        error = status["config"]["error"] or "its router has not taken it yet"
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            return error

    async def released(self, replica: str) -> None:
        """Wait until the router sends nothing new to a draining replica and all its answers have ended."""
        while True:
            status = await self.status()
            if status:
                pages = [page for page in status["replicas"] if page["name"] == replica]
                if all(page["state"] != "Ready" and not page["inFlight"] for page in pages):
                    return
            await asyncio.sleep(LOOK_S)

    @property
    def _reachable(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"[{host}]" if ":" in host else host

    def _command(self) -> list[str]:
        self._ready.unlink(missing_ok=True)
        return [
            *(sys.executable, "-m", "halffull", "router"),
            *("--host", self._host, "--port", str(self.port), "--admin-port", str(self.admin_port)),
            *("--config", str(self._config), "--ready-file", str(self._ready)),
            *("--state-dir", str(self._folder), "--log-level", "warning"),
            *(("--record", str(self._record)) if self._record else ()),
        ]

    async def _serves(self) -> bool:
        try:
            ready = json.loads(self._ready.read_text(encoding="utf-8"))
            self.port, self.admin_port = int(ready["port"]), int(ready["adminPort"])
        except (OSError, ValueError):
            return False
        return True
