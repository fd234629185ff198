"""Carries out a RouterConfig: scheduler, data path, scraper, balance, and the source of the endpoints.

`config` calls `apply` with each new document. All that can fail is done first, so that a document applies whole or not at
all; what did not change is left alone.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import aiohttp

from halffull.api.router_config import EngineTarget, RouterConfig
from halffull.core.contracts import Rng
from halffull.core.dispatch import Dispatcher
from halffull.engines.catalog import ENGINES
from halffull.router import scheduler
from halffull.router.fleet import Fleet
from halffull.router.http.client import ClientLimits
from halffull.router.observability.access_log import AccessLog
from halffull.router.observability.recording import Recorder
from halffull.router.proxy import BYTES_PER_TOKEN, Proxy, Settings
from halffull.router.requests.priority import Priority
from halffull.router.requests.tokenizer import Tokenizer
from halffull.router.signals.kv_events import KvEvents
from halffull.router.signals.scrape import Plan, Scraper
from halffull.router.sources.endpoints import FixedSource, Saved, SliceSource
from halffull.router.sources.engine_client import EngineClient
from halffull.router.sources.kube import ApiServer
from halffull.router.supervision import again

LOG = logging.getLogger(__name__)

EndpointSource = FixedSource | SliceSource


class Applier:
    """Holds the parts that a configuration reaches."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        proxy: Proxy,
        access_log: AccessLog,
        recorder: Recorder,
        kv_events: KvEvents,
        fleet: Fleet,
        scraper: Scraper,
        kubernetes: aiohttp.ClientSession,
        api: ApiServer | None,
        saved: Saved,
        now: Callable[[], float],
        rng: Rng,
    ) -> None:
        """`api` None: there is no API server, and a configuration that names a Service is refused."""
        self._dispatcher = dispatcher
        self._proxy = proxy
        self._access_log = access_log
        self._recorder = recorder
        self._kv_events = kv_events
        self._fleet = fleet
        self._scraper = scraper
        self._kubernetes = kubernetes
        self._api = api
        self._saved = saved
        self._now = now
        self._rng = rng
        self._source: EndpointSource | None = None
        self._following: asyncio.Task[None] | None = None
        self._untrusted = ""
        """why the renewed authorities of the engines are not used; empty: they are"""

    @property
    def error(self) -> str:
        """Why changes of the endpoints are not heard of now; empty: they are."""
        return self._source.error if self._source else "no configuration"

    def apply(self, document: RouterConfig, previous: RouterConfig | None) -> None:
        """Carry out `document`. Raises ValueError or OSError, and then has changed nothing."""
        made = scheduler.build(document.scheduling)
        plan = self._plan(document, previous)
        settings = _settings(document)
        tokenizer = self._tokenizer(document, previous)
        moved = previous is None or _place(previous) != _place(document)
        source = self._make_source(document, plan) if moved else None

        if previous is None or scheduler.differs(previous, document):
            limits = scheduler.limits(document)
            self._dispatcher.configure(made.policy, made.ordering, made.gate, limits, self._now())
        self._proxy.configure(plan.adapter, settings)
        self._proxy.tokens.tokenizer = tokenizer
        self._log_access(document.router.access_log.sample)
        self._recorder.configure(document.router.record)
        self._kv_events.configure(document.engine.kv_events)
        self._proxy.engines.trust(plan.client.tls)
        self._proxy.engines.connect_s = document.router.limits.connect_seconds
        if plan.client is not self._scraper.plan.client:
            self._scraper.plan.client.close()
        self._scraper.configure(plan)
        signals = document.scheduling.signals
        self._fleet.judge_signals(signals.stale_after_seconds, exclude=signals.when_stale == "exclude")
        if previous is not None and _way(previous.engine) != _way(document.engine):
            self._fleet.renew()
        self._fleet.balance(document.balance)
        self._proxy.release()
        if source is not None:
            self.close()
            self._source = source
            self._following = asyncio.get_running_loop().create_task(again(source.run, "endpoints"))

    def renew(self) -> None:
        """Trust what the file of the engines' authorities says now, for new connections; to be called about once a second.

        A file that is missing or broken is logged, and the authorities that it had before are trusted on.
        """
        client = self._scraper.plan.client
        try:
            renewed = client.renew()
        except OSError as error:
            if str(error) != self._untrusted:
                LOG.warning("engine: the renewed authorities in %s are not used: %s", client.authorities, error)
            self._untrusted = str(error)
            return
        self._untrusted = ""
        if renewed:
            self._proxy.engines.trust(client.tls)
            LOG.info("engine: authorities in %s renewed", client.authorities)

    def _log_access(self, share: float) -> None:
        """Write lines of a share of requests; of none, the data path does not even tell."""
        witnesses = self._proxy.witnesses
        self._access_log.share = share
        if share > 0 and self._access_log not in witnesses:
            witnesses.append(self._access_log)
        elif share <= 0 and self._access_log in witnesses:
            witnesses.remove(self._access_log)

    def close(self) -> None:
        """Follow endpoints no longer."""
        if self._following is not None:
            self._following.cancel()
            self._following = None

    def _tokenizer(self, document: RouterConfig, previous: RouterConfig | None) -> Tokenizer | None:
        """Return what counts prompts; reading a file takes a second, so only where it is another."""
        file = document.tokenizer.file if document.tokenizer else None
        if file is None:
            return None
        same = previous is not None and previous.tokenizer is not None and previous.tokenizer.file == file
        return self._proxy.tokens.tokenizer if same else Tokenizer(Path(file))

    def _plan(self, document: RouterConfig, previous: RouterConfig | None) -> Plan:
        """Return how engines are asked. To read the authorities of this machine takes 25 ms, in which no stream moves: so a client
        serves as long as the engines are the same.
        """
        engine = document.engine
        same = previous is not None and previous.engine == engine
        return Plan(
            self._scraper.plan.client if same else EngineClient(engine, self._now),
            ENGINES[engine.type],
            document.scheduling.signals.interval_seconds,
            engine.limits,
        )

    def _heard(self, name: str) -> float:
        replica = self._fleet.replicas.get(name)
        return replica.signals_at if replica is not None else 0.0

    def _make_source(self, document: RouterConfig, plan: Plan) -> EndpointSource:
        engine = document.engine
        if engine.endpoints is not None:
            return FixedSource(
                engine.endpoints,
                engine.port,
                client=plan.client,
                health_path=plan.adapter.container.health_path,
                found=self._fleet.found,
                heard=self._heard,
                rng=self._rng,
            )
        if engine.service is None:
            raise ValueError("engine: one of service and endpoints is needed")
        if self._api is None:
            raise ValueError("engine.service: needs an API server, and the configuration comes from a file")
        return SliceSource(
            self._kubernetes,
            self._api,
            document.model_deployment.namespace,
            engine.service,
            engine.port,
            saved=self._saved,
            found=self._fleet.found,
            rng=self._rng,
        )


def _settings(document: RouterConfig) -> Settings:
    """The part of the configuration that the data path reads."""
    router, limits = document.router, document.router.limits
    return Settings(
        model=document.model,
        aliases=frozenset(document.model_aliases),
        resume=document.resume == "continue",
        priority=Priority(document.engine.priority),
        bytes_per_token=(document.tokenizer and document.tokenizer.bytes_per_token) or BYTES_PER_TOKEN,
        sessions=document.engine.kv_events is not None,
        request_s=router.request_timeout_seconds,
        clients=ClientLimits(
            head_bytes=limits.head_bytes,
            headers=limits.headers,
            body_bytes=limits.body_bytes,
            connections=limits.connections,
            head_s=limits.head_seconds,
            body_s=limits.body_seconds,
            idle_s=limits.idle_seconds,
            age_s=limits.connection_seconds,
        ),
    )


def _place(document: RouterConfig) -> tuple[object, ...]:
    """What says where the endpoints are; a change of it needs another source."""
    engine = document.engine
    return (document.model_deployment.namespace, engine.service, engine.endpoints, engine.port, *_way(engine))


def _way(engine: EngineTarget) -> tuple[object, ...]:
    """What says how engines are called."""
    return (engine.type, engine.scheme, engine.ca_file, engine.api_key_file)
