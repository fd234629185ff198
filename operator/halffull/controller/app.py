"""The operator as a whole: made of its parts here, run by `command`.

Of several operators the one that holds the Lease does everything below; the others only wait. A leader lists what there
is, then watches, reconciles, and asks engines and routers, until it is stopped or loses the Lease.
"""

import asyncio
import json
import logging
import os
import random
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import kopf
from aiohttp import web

from halffull.controller import adoption
from halffull.controller.child import Settings
from halffull.controller.external_metrics import Serving, served
from halffull.controller.handlers import shell
from halffull.controller.kube import ApiError, Document, Kube
from halffull.controller.leader import LeaseLock, lead
from halffull.controller.metrics import Metrics, application
from halffull.controller.names import Key
from halffull.controller.observed import Observed
from halffull.controller.picture import Item, Picture
from halffull.controller.policies import PolicyReconciler
from halffull.controller.queue import KeyedQueue
from halffull.controller.reconcile import Reconciler
from halffull.controller.records import Records
from halffull.controller.rounds import Rounds
from halffull.controller.scrape import Scraper
from halffull.controller.tell import Teller

LOG = logging.getLogger(__name__)
RESYNC_S = 600.0
"""everything is listed and applied anew so often, whatever was or was not seen meanwhile"""
RETRY_S = 2.0
"""between attempts of the first list"""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    settings: Settings
    identity: str
    """of this process among operators"""
    lease: Key
    kubeconfig: Path | None = None
    """None: this pod's service account"""
    namespaces: Sequence[str] = field(default_factory=tuple)
    """that are watched; empty: all"""
    host: str = "0.0.0.0"
    port: int = 8080
    external_metrics: Serving | None = None
    """None: the external-metrics API is not served"""
    ready_file: Path | None = None
    """written with the port and the process id once the port is served"""

    @property
    def scopes(self) -> Sequence[str | None]:
        """The namespaces to list, None for all."""
        return self.namespaces or (None,)


async def run(options: Options) -> None:
    """Run until SIGINT or SIGTERM. Raises what cannot be recovered from."""
    metrics = Metrics()
    stop = asyncio.Event()
    runner = web.AppRunner(application(metrics), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, options.host, options.port).start()
    _announce(runner, options)
    try:
        async with await Kube.connect(options.kubeconfig) as kube, served(kube, options.external_metrics):
            lock = LeaseLock(kube, options.lease.namespace, options.lease.name, options.identity)
            leading = asyncio.create_task(lead_until_stopped(lock, options, kube, metrics, stop))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if leading.done():
                leading.result()
            leading.cancel()
            await asyncio.wait({leading})
    finally:
        await runner.cleanup()


def _announce(runner: web.AppRunner, options: Options) -> None:
    """Say where metrics and probes are served."""
    port = runner.addresses[0][1]
    LOG.info("metrics and probes on port %d", port)
    if options.ready_file is not None:
        fresh = options.ready_file.with_suffix(".new")
        fresh.write_text(json.dumps({"port": port, "pid": os.getpid()}))
        fresh.replace(options.ready_file)


async def lead_until_stopped(
    lock: LeaseLock, options: Options, kube: Kube, metrics: Metrics, stop: asyncio.Event
) -> None:
    """Lead, and wait to lead again, until stopped.

    A term may fail: kopf ends with an error where a watch does, as one may of an API server that shuts down.
    """
    loop = asyncio.get_running_loop()
    while True:
        for number in (signal.SIGINT, signal.SIGTERM):  # kopf puts its own in their place while it runs
            loop.add_signal_handler(number, stop.set)
        try:
            if await lead(lock, Leader(options, kube, metrics).run):
                return
        except Exception:  # an outage of the API server, in whatever form, must not end the operator
            LOG.exception("a term as leader failed; the next begins in %g s", RETRY_S)
            await asyncio.sleep(RETRY_S)


class Leader:
    """One term of leadership."""

    def __init__(self, options: Options, kube: Kube, metrics: Metrics) -> None:
        self._options = options
        self._kube = kube
        self._metrics = metrics
        self._observed = Observed()
        self._records = Records()
        self._picture = Picture(self._observed)
        self._queue: KeyedQueue[Item] = KeyedQueue(self._work, self._failed)

    async def run(self) -> None:
        """Act until kopf is stopped by a signal, or this is cancelled."""
        self._metrics.leader.set(1)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                self._assemble(session)
                await self._first_list()
                try:
                    async with asyncio.TaskGroup() as group:
                        tasks = [group.create_task(self._queue.run()), group.create_task(self._resync())]
                        await self._watch(tasks)
                        self._end(tasks)
                finally:  # also where kopf did not get as far as its end, or a reconcile came after it
                    self._rounds.stop()
        finally:
            self._metrics.leader.set(0)

    def _end(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        self._rounds.stop()
        for task in tasks:
            task.cancel()

    def _assemble(self, session: aiohttp.ClientSession) -> None:
        """Make the parts and tie them together."""
        queue = self._queue
        rng = random.Random()
        self._rounds = Rounds(
            self._observed,
            self._records,
            Scraper(session, self._metrics),
            wake=lambda key: queue.wake(Item("ModelDeployment", key)),
            metrics=self._metrics,
            rng=rng,
        )
        self._deployments = Reconciler(
            self._kube,
            self._observed,
            self._records,
            self._options.settings,
            rounds=self._rounds,
            teller=Teller(self._kube, self._options.identity),
            wake_later=lambda key, seconds: queue.wake_later(Item("ModelDeployment", key), seconds),
            wrote=self._wake_policy,
        )
        self._policies = PolicyReconciler(
            self._kube,
            self._observed,
            self._records,
            lambda key, seconds: queue.wake_later(Item("SchedulingPolicy", key), seconds),
        )

    async def _first_list(self) -> None:
        """See everything once before anything is judged; waits for the API server and for the CRDs."""
        while True:
            try:
                await self._picture.refresh(self._kube, self._options.scopes)
                break
            except ApiError as error:
                LOG.warning("cannot list yet: %s", error)
                await asyncio.sleep(RETRY_S)
        self._wake_all()
        self._metrics.queue_depth.set_function(lambda: len(self._queue))
        self._metrics.resources.set_function(lambda: len(self._observed.deployments))

    def _wake_all(self) -> None:
        for key in self._observed.deployments:
            self._queue.wake(Item("ModelDeployment", key))
        for key in self._observed.policies:
            self._queue.wake(Item("SchedulingPolicy", key))
        for namespace in self._options.scopes:
            self._queue.wake(Item("Sweep", Key(namespace or "", "")))

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_S)
            try:
                woken = await self._picture.refresh(self._kube, self._options.scopes)
            except ApiError as error:
                LOG.warning("cannot list anew: %s", error)
                continue
            for item in woken:  # what went while no watch ran is seen only here, and is not among what there is
                self._queue.wake(item)
            self._records.distrust()
            self._wake_all()

    async def _watch(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Run kopf; returns when a signal stops it."""
        registry, settings = shell(self._took, lambda: self._end(tasks), self._kube.configuration)
        await kopf.operator(
            registry=registry,
            settings=settings,
            # else kopf asks for the user's name, and the user of a container has none
            identity=self._options.identity,  # type: ignore[arg-type]  # a NewType that kopf does not export
            standalone=True,
            namespaces=list(self._options.namespaces),
            clusterwide=not self._options.namespaces,
        )

    def _took(self, kind: str, event: str | None, document: Document) -> None:
        for item in self._picture.take(kind, event, document):
            if kind not in {"ModelDeployment", "SchedulingPolicy"}:
                self._deployments.touch(item.key, kind)
            self._queue.wake(item)

    def _wake_policy(self, key: Key) -> None:
        document = self._observed.deployments.get(key) or {}
        named = (document.get("spec", {}).get("schedulingPolicyRef") or {}).get("name")
        if named:
            self._queue.wake(Item("SchedulingPolicy", Key(key.namespace, named)))

    async def _work(self, item: Item) -> None:
        with self._metrics.seconds.time():
            match item.kind:
                case "ModelDeployment":
                    await self._deployments.reconcile(item.key)
                case "SchedulingPolicy":
                    await self._policies.reconcile(item.key)
                case "Sweep" if self._options.settings.patch_adopted:
                    await adoption.sweep(self._kube, [item.key.namespace or None])
        self._metrics.reconciles.inc()

    def _failed(self, item: Item, error: Exception) -> None:
        self._metrics.errors.inc()
        if isinstance(error, ApiError):
            LOG.warning("%s %s: %s", item.kind, item.key, error)
        else:
            LOG.error("%s %s failed", item.kind, item.key, exc_info=error)
