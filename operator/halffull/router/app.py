"""The router put together: clock, randomness, dispatcher, data path, sources, scraper and admin port; start, drain, end.

`command` makes one `Router` per process and runs it. Nothing here decides about a request.
"""

import asyncio
import json
import logging
import os
import random
import secrets
import signal
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from halffull.api.router import Drain
from halffull.api.router_config import EngineTarget, RouterConfig, Source
from halffull.api.scheduling import Scheduling
from halffull.core.contracts import Rng
from halffull.core.dispatch import Dispatcher
from halffull.core.limits import Limits
from halffull.engines.catalog import ENGINES
from halffull.router import garbage, scheduler
from halffull.router.applier import Applier
from halffull.router.config import Config
from halffull.router.fleet import Fleet
from halffull.router.http.tls import ServerTls
from halffull.router.observability import admin, metrics, tracing
from halffull.router.observability.access_log import AccessLog
from halffull.router.observability.output import Output
from halffull.router.observability.recording import Recorder
from halffull.router.observability.status import Report
from halffull.router.peers.peering import Peering
from halffull.router.proxy import Proxy, Settings
from halffull.router.signals.inspector import Inspector
from halffull.router.signals.kv_events import KvEvents
from halffull.router.signals.scrape import Plan, Scraper
from halffull.router.sources.config_source import ConfigMapSource, FileSource
from halffull.router.sources.discovery import address
from halffull.router.sources.endpoints import Saved
from halffull.router.sources.engine_client import EngineClient
from halffull.router.sources.kube import ApiServer
from halffull.router.sources.watch import session
from halffull.router.supervision import again

LOG = logging.getLogger(__name__)
TICK_S = 0.05
HOUSEKEEPING_S = 1.0


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """Configuration from a ConfigMap of the cluster."""

    api: ApiServer
    namespace: str
    name: str
    mounted: Path | None = None
    """directory where the same ConfigMap is mounted"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    source: ConfigMap | Path
    """a ConfigMap, or a file"""
    host: str = "0.0.0.0"
    port: int = 8100
    reuse_port: bool = False
    """other processes serve the same port"""
    admin_port: int = 8101
    admin_socket: Path | None = None
    """where the admin pages are served instead of the admin port"""
    admin_token_file: Path | None = None
    """holds the bearer token that some admin pages demand; None: they are open"""
    state_dir: Path | None = None
    record: Path | None = None
    """record requests here, whatever the configuration says; None: in `state_dir`, if the configuration says so"""
    ready_file: Path | None = None
    fallback_engine: EngineTarget | None = None
    """forwarded to while there is no configuration at all"""
    traces: bool = False
    """send spans, where OpenTelemetry is installed"""
    peering: Peering | None = None
    """other routers that share their books with this one; None: it is alone"""
    tls: ServerTls | None = None
    """HTTPS on the public port; None: HTTP"""


class Router:
    """One router process. To be made inside its running loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._output = Output()
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._configured = asyncio.Event()
        self._due = 0.0
        """when the next tick is due"""
        self._kubernetes = session()
        now, rng = self._loop.time, random.Random()
        self._rng = rng
        start, adapter = scheduler.build(Scheduling()), ENGINES["vllm"]
        dispatcher = Dispatcher(start.policy, start.ordering, start.gate, rng, Limits())
        self._proxy = Proxy(dispatcher, adapter, Settings(model=""), now, f"hf-{secrets.token_hex(4)}-")
        plan = Plan(EngineClient(EngineTarget(), now), adapter)
        sharing = None
        if options.peering is not None:
            sharing = options.peering.sharing(self._proxy, lambda: self._scraper, now, rng)
        self._sharing = sharing
        if sharing is None:
            self._scraper = Scraper(plan, now, rng, self._proxy.refresh)
        else:
            self._scraper = Scraper(plan, now, rng, self._proxy.refresh, owns=sharing.owns, share=sharing.scraped)
        self._fleet = Fleet(dispatcher.books, self._proxy, self._scraper, now)
        access_log = AccessLog(self._output.write, time.time, rng)
        self._kv_events = KvEvents(dispatcher.books.prefixes, lambda: self._scraper.plan.client)
        self._proxy.placed = self._kv_events.placed
        self._recorder = Recorder(
            _recording(options),
            self._proxy,
            time.time,
            secret=options.peering.token if options.peering else lambda: None,
            always=options.record is not None,
        )
        if options.traces and (spans := tracing.tracer(now, time.time)) is not None:
            self._proxy.witnesses.append(spans)
        source = options.source
        self._applier = Applier(
            dispatcher=dispatcher,
            proxy=self._proxy,
            access_log=access_log,
            recorder=self._recorder,
            kv_events=self._kv_events,
            fleet=self._fleet,
            scraper=self._scraper,
            kubernetes=self._kubernetes,
            api=source.api if isinstance(source, ConfigMap) else None,
            saved=Saved(options.state_dir),
            now=now,
            rng=rng,
        )
        self._inspector = Inspector(self._proxy, lambda: self._scraper.plan, now)
        self._config = Config(self._apply)
        self._source = self._config_source(rng)
        self._report = Report(
            config=self._config,
            fleet=self._fleet,
            dispatcher=dispatcher,
            telemetry=self._proxy.telemetry,
            tokens=self._proxy.tokens.figures,
            sources=lambda: {"configuration": self._source.error, "endpoints": self._applier.error},
            scraper=self._scraper,
            connections=lambda: len(self._proxy.clients),
            draining=self._stopping.is_set,
            recording=self._recorder.figures,
            prefix_cache=self._kv_events.figures,
            sharing=sharing,
            now=now,
        )

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then drain; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        async with AsyncExitStack() as stack:
            stack.callback(self._close_calls)
            stack.push_async_callback(self._kubernetes.close)
            admin_port = await self._open_admin(stack)
            stack.push_async_callback(self._recorder.flush)
            for work, name in (
                (self._source.run, "configuration"),
                (self._housekeep, "housekeeping"),
                (self._recorder.run, "recording"),
            ):
                stack.callback(self._loop.create_task(again(work, name)).cancel)
            stack.callback(self._scraper.close)
            stack.callback(self._applier.close)
            stack.callback(self._inspector.close)
            stack.callback(self._kv_events.close)
            await self._until_configured()
            if not self._stopping.is_set():
                options, tls = self._options, self._options.tls
                port = await self._proxy.listen(
                    options.host, options.port, tls.context if tls else None, reuse_port=options.reuse_port
                )
                await self._open_peers(stack)
                stack.enter_context(garbage.tamed(self._proxy.telemetry.gc_pause))
                self._due = self._loop.time()
                self._tick()
                self._announce(port, admin_port)
                await self._stopping.wait()
                await self._drain()
        return 0

    # --- start

    def _config_source(self, rng: Rng) -> ConfigMapSource | FileSource:
        source = self._options.source
        if isinstance(source, Path):
            return FileSource(source, offer=self._config.offer, missing=self._missing)
        return ConfigMapSource(
            self._kubernetes,
            source.api,
            source.namespace,
            source.name,
            mounted=source.mounted,
            offer=self._config.offer,
            missing=self._missing,
            rng=rng,
        )

    async def _open_admin(self, stack: AsyncExitStack) -> int:
        """Open the admin port first, so that probes hear from us from the beginning; return it (a socket: 0)."""
        pages = admin.application(
            self._report, metrics.registry(self._report), self._recorder.content, self._options.admin_token_file
        )
        runner = web.AppRunner(pages, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if self._options.admin_socket is not None:
            await web.UnixSite(runner, self._options.admin_socket).start()
            return 0
        await web.TCPSite(runner, self._options.host, self._options.admin_port).start()
        port: int = runner.addresses[0][1]
        return port

    async def _open_peers(self, stack: AsyncExitStack) -> None:
        """Meet the other routers, once this one serves."""
        peering, source = self._options.peering, self._options.source
        if peering is None or self._sharing is None:
            return
        stack.callback(self._sharing.close)
        try:
            for server in await peering.listen(self._sharing, self._options.host):
                stack.callback(server.close)
        except OSError as error:
            LOG.warning("other routers cannot connect to this one: %s", error)
        if peering.service and isinstance(source, ConfigMap):
            found = peering.follow(self._sharing, self._kubernetes, source.api, source.namespace, self._rng)
            stack.callback(self._loop.create_task(again(found.run, "peers")).cancel)
        else:
            self._sharing.found(peering.fixed)

    async def _until_configured(self) -> None:
        """Wait for the first configuration, or the order to stop."""
        waits = [self._loop.create_task(event.wait()) for event in (self._configured, self._stopping)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _announce(self, port: int, admin_port: int) -> None:
        """Say where we serve: one line for people, a file for programs."""
        host = self._options.host
        scheme = "https" if self._options.tls else "http"
        line = f"halffull router: serving {scheme}://{address(host, port)}, admin http://{address(host, admin_port)}"
        self._output.write(f"{line}\n")
        if self._options.ready_file:
            fresh = self._options.ready_file.with_suffix(".new")
            fresh.write_text(json.dumps({"port": port, "adminPort": admin_port, "pid": os.getpid()}))
            fresh.replace(self._options.ready_file)

    # --- configuration

    def _apply(self, document: RouterConfig, previous: RouterConfig | None) -> None:
        self._applier.apply(document, previous)
        self._configured.set()

    def _missing(self, reason: str) -> None:
        """There is no configuration to be had now: stay with the last one, or begin with our own pod's engine."""
        self._config.missing(reason)
        engine = self._options.fallback_engine
        if engine is not None and self._config.current is None:
            LOG.warning("forwarding to %s until there is a configuration", engine.endpoints)
            document = RouterConfig(model_deployment=Source(name=""), model="", engine=engine)
            self._config.offer(document.seal().to_json(), "--fallback-engine")

    # --- time

    def _close_calls(self) -> None:
        """The client is another after each configuration."""
        self._scraper.plan.client.close()

    def _tick(self) -> None:
        now = self._loop.time()
        self._proxy.telemetry.loop_delay.observe(max(now - self._due, 0.0))
        self._due = now + TICK_S
        self._loop.call_at(self._due, self._tick)
        self._proxy.tick()
        self._inspector.take()

    async def _housekeep(self) -> None:
        """Once a second: a configuration that waits, certificates, stale signals, and counters of replicas that are gone."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self._config.look_again()
            self._applier.renew()
            self._fleet.check_signals()
            self._kv_events.follow(self._fleet.replicas.values())
            self._kv_events.compare(self._fleet.replicas.values())
            if self._options.tls:
                self._options.tls.renew()
            exchanges = [passage.exchange for passage in self._proxy.passages]
            busy = {exchange.replica.name for exchange in exchanges if exchange and exchange.replica}
            self._proxy.telemetry.keep(self._fleet.replicas.keys() | busy)

    # --- end

    def _stop(self) -> None:
        """SIGTERM or SIGINT: drain; a second one ends the drain."""
        if self._stopping.is_set():
            self._hurry.set()
        LOG.info("stopping: draining")
        self._stopping.set()

    async def _drain(self) -> None:
        """Go on accepting while traffic still comes, then finish what runs, idle connections last."""
        current, proxy = self._config.current, self._proxy
        drain = current.router.drain if current else Drain()
        proxy.closing = True
        await self._pause(drain.accept_seconds)
        proxy.stop_listening()
        deadline = self._loop.time() + drain.seconds
        while (
            any(client.busy for client in proxy.clients) and self._loop.time() < deadline and not self._hurry.is_set()
        ):
            await self._pause(TICK_S)
        if proxy.passages:
            LOG.warning("drain ends with %d unfinished requests", len(proxy.passages))
            proxy.end()
        proxy.close_idle()
        await asyncio.sleep(TICK_S)  # closed connections still write what they hold

    async def _pause(self, seconds: float) -> None:
        """Wait, or until a second signal says to hurry."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()


def _recording(options: Options) -> Path | None:
    """Return where requests are recorded, if they are: workers of one pod share their directory, not their files."""
    if options.record is not None or options.state_dir is None:
        return options.record
    worker = f"-{options.admin_socket.stem}" if options.admin_socket is not None else ""
    return options.state_dir / f"recording{worker}.jsonl"
