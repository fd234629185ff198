"""Several router processes on one public port behind one admin port: `halffull router --workers N`.

Each worker is a whole router on the same port by SO_REUSEPORT, its admin pages on a Unix socket; the workers are peers, over
Unix sockets too, so that each knows the load of all. This process starts them, starts again one that ends, passes signals on, and serves the admin port of all. `command` makes it.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from halffull.router.observability import merge
from halffull.router.observability.admin import DECISIONS_SHOWN, guard, streamed
from halffull.router.observability.output import Output
from halffull.router.sources.discovery import address

LOG = logging.getLogger(__name__)
ANSWER_S = 5.0
"""longest wait for a worker's admin page"""
RESTART_S = 1.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Place:
    """Where the workers serve, and their arguments."""

    host: str
    port: int
    admin_port: int
    ready_file: Path | None
    admin_token_file: Path | None = None
    """demanded here; the workers' own sockets are in a folder of ours"""
    peer_port: int | None = None
    """of the first worker, for routers of other pods; each further one has the next; None: there are no other pods"""
    record: Path | None = None
    """where requests are recorded, each worker in a file of its own"""
    arguments: Sequence[str] = field(default=())
    """of `halffull router`, without workers, ports and ready file"""


class Workers:
    """The processes and their common admin port."""

    def __init__(self, place: Place, count: int) -> None:
        self._place = place
        self._count = count
        self._scratch = tempfile.TemporaryDirectory(prefix="halffull-workers-")
        self._folder = Path(self._scratch.name)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Serve until told to stop; return 0, or the first other status with which a worker ended its drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        with self._scratch, _reserved(self._place.host, self._place.port) as port:
            runner = web.AppRunner(self._admin(), access_log=None)
            await runner.setup()
            await web.TCPSite(runner, self._place.host, self._place.admin_port).start()
            keepers = [loop.create_task(self._keep(number, port)) for number in range(self._count)]
            announcing = loop.create_task(self._announce(port, runner.addresses[0][1]))
            statuses = await asyncio.gather(*keepers)
            announcing.cancel()
            await runner.cleanup()
        return next((status for status in statuses if status), 0)

    def _stop(self) -> None:
        """Pass the signal on: each worker drains."""
        self._stopping.set()
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def _keep(self, number: int, port: int) -> int:
        """Run one worker, again if it ends by itself; return its status once it was told to stop."""
        while True:
            try:
                status = await self._work(number, port)
            except OSError as error:  # no memory for a process, maybe: the other workers go on
                LOG.warning("worker %d cannot be started: %s", number, error)
                status = 1
            if self._stopping.is_set():
                return status
            LOG.error("worker %d ended with status %d: starting it again", number, status)
            self._ready(number).unlink(missing_ok=True)
            self._socket(number).unlink(missing_ok=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(RESTART_S):
                    await self._stopping.wait()
                return status

    async def _work(self, number: int, port: int) -> int:
        """Run one worker once; return its status. Raises OSError where it cannot be started."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "halffull", "router", *self._place.arguments, "--host", self._place.host),
            *("--port", str(port), "--reuse-port", "--admin-socket", str(self._socket(number))),
            *("--ready-file", str(self._ready(number))),
            *self._peering(number),
            *self._recording(number),
            stdout=asyncio.subprocess.DEVNULL,
        )
        self._processes[number] = process
        if self._stopping.is_set():
            process.terminate()
        return await process.wait()

    def _peering(self, number: int) -> list[str]:
        """Arguments by which a worker shares its books with the others, and with routers of other pods."""
        sockets = [str(self._peer_socket(other)) for other in range(self._count)]
        arguments = ["--peer-socket", sockets.pop(number), "--peers", ",".join(sockets)]
        if self._place.peer_port is not None:
            first = self._place.peer_port
            arguments += ["--peer-port", str(first + number), "--peer-first-port", str(first)]
            arguments += ["--peer-processes", str(self._count)]
        return arguments

    def _recording(self, number: int) -> list[str]:
        record = self._place.record
        return [] if record is None else ["--record", str(record.with_stem(f"{record.stem}-{number}"))]

    async def _announce(self, port: int, admin_port: int) -> None:
        """Say where we serve, once every worker does."""
        while not all(self._ready(number).exists() for number in range(self._count)):  # noqa: ASYNC110  # other processes
            await asyncio.sleep(POLL_S)
        host = self._place.host
        line = f"halffull router: {self._count} workers serving {address(host, port)}, admin http://{address(host, admin_port)}"
        Output().write(f"{line}\n")
        if self._place.ready_file:
            fresh = self._place.ready_file.with_suffix(".new")
            fresh.write_text(json.dumps({"port": port, "adminPort": admin_port, "pid": os.getpid()}))
            fresh.replace(self._place.ready_file)

    # --- the admin port

    def _admin(self) -> web.Application:
        async def healthz(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def readyz(_: web.Request) -> web.Response:
            pages = await self._ask("/readyz")
            ready = len(pages) == self._count and all(status == 200 for status, _ in pages)
            return web.Response(text="ok\n") if ready else web.Response(status=503, text="not ready\n")

        async def status(_: web.Request) -> web.Response:
            return web.json_response(merge.status([json.loads(text) for _, text in await self._pages("/status")]))

        async def decisions(request: web.Request) -> web.Response:
            pages = await self._pages("/decisions?" + request.query_string)
            count = request.query.get("count", str(DECISIONS_SHOWN))
            return web.json_response(merge.decisions([json.loads(text) for _, text in pages], int(count)))

        async def metrics(_: web.Request) -> web.Response:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_Merged(merge.metrics([text for _, text in await self._pages("/metrics")])))
            return web.Response(body=generate_latest(registry), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

        async def recording(request: web.Request) -> web.StreamResponse:
            return await streamed(request, self._recordings())

        made = web.Application(middlewares=guard(self._place.admin_token_file))
        for path, handler in (("/healthz", healthz), ("/readyz", readyz), ("/status", status)):
            made.router.add_get(path, handler)
        made.router.add_get("/decisions", decisions)
        made.router.add_get("/metrics", metrics)
        made.router.add_get("/recording", recording)
        return made

    async def _recordings(self) -> AsyncIterator[bytes]:
        """What each worker recorded, one after the other."""
        for number in range(self._count):
            connector = aiohttp.UnixConnector(str(self._socket(number)))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get("http://worker/recording") as answer,
            ):
                async for piece in answer.content.iter_any():
                    yield piece

    async def _pages(self, path: str) -> list[tuple[int, str]]:
        """Answers 200 of the workers. Raises HTTPServiceUnavailable where none gives one, or what one of them refuses."""
        pages = await self._ask(path)
        good = [page for page in pages if page[0] == 200]
        if pages and pages[0][0] == 400:
            raise web.HTTPBadRequest(text=pages[0][1])
        if not good:
            raise web.HTTPServiceUnavailable(text=pages[0][1] if pages else "no worker answers\n")
        return good

    async def _ask(self, path: str) -> list[tuple[int, str]]:
        """Status and text of a page of each worker that answers."""
        found = await asyncio.gather(*(self._page(number, path) for number in range(self._count)))
        return [page for page in found if page is not None]

    async def _page(self, number: int, path: str) -> tuple[int, str] | None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        connector = aiohttp.UnixConnector(str(self._socket(number)))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(f"http://worker{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            LOG.debug("worker %d: %s", number, error)
            return None

    def _socket(self, number: int) -> Path:
        return self._folder / f"{number}.sock"

    def _peer_socket(self, number: int) -> Path:
        return self._folder / f"{number}.peers"

    def _ready(self, number: int) -> Path:
        return self._folder / f"{number}.json"


class _Merged(Collector):
    """Metrics that were merged already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """Return them."""
        return self._families


@contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """Hold the public port, so that all workers get the same one: bound, never listening. Raises OSError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
        yield held.getsockname()[1]
