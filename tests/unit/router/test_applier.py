"""What a new configuration replaces, and what it leaves alone."""

import random
from collections.abc import AsyncIterator

import pytest

from halffull.api.router_config import RouterConfig
from halffull.engines.catalog import ENGINES
from halffull.router.applier import Applier
from halffull.router.fleet import Fleet
from halffull.router.observability.access_log import AccessLog
from halffull.router.observability.recording import Recorder
from halffull.router.signals.kv_events import KvEvents
from halffull.router.signals.scrape import Plan, Scraper
from halffull.router.sources.endpoints import Saved
from halffull.router.sources.engine_client import EngineClient
from halffull.router.sources.watch import session
from in_memory import World

DOCUMENT = {"modelDeployment": {"name": "m"}, "model": "m", "engine": {"type": "vllm", "endpoints": ["127.0.0.1:1"]}}


class Parts:
    """An applier and what it reaches."""

    def __init__(self) -> None:
        world, rng = World(), random.Random(1)
        self.proxy, dispatcher, now = world.proxy, world.proxy.dispatcher, lambda: world.now
        start = RouterConfig.model_validate(DOCUMENT)
        self.scraper = Scraper(Plan(EngineClient(start.engine, now), ENGINES["vllm"]), now, rng, self.proxy.refresh)
        self.kubernetes = session()
        self.kv_events = KvEvents(dispatcher.books.prefixes, lambda: self.scraper.plan.client)
        self.applier = Applier(
            dispatcher=dispatcher,
            proxy=self.proxy,
            access_log=AccessLog(lambda _: None, now, rng),
            recorder=Recorder(None, self.proxy, now, secret=lambda: None, always=False),
            kv_events=self.kv_events,
            fleet=Fleet(dispatcher.books, self.proxy, self.scraper, now),
            scraper=self.scraper,
            kubernetes=self.kubernetes,
            api=None,
            saved=Saved(None),
            now=now,
            rng=rng,
        )
        self._last: RouterConfig | None = None

    def apply(self, **changed: object) -> EngineClient:
        """Apply the document with these fields; return what engines are asked with then."""
        document = RouterConfig.model_validate(DOCUMENT | changed)
        self.applier.apply(document, self._last)
        self._last = document
        return self.scraper.plan.client


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    made = Parts()
    yield made
    made.applier.close()
    made.scraper.close()
    made.kv_events.close()
    await made.kubernetes.close()


async def test_new_weights_leave_the_connections_to_engines_and_their_authorities_alone(parts: Parts) -> None:
    before = parts.apply(engine=DOCUMENT["engine"] | {"scheme": "https"})
    assert parts.proxy.engines.tls is before.tls is not None

    after = parts.apply(
        engine=DOCUMENT["engine"] | {"scheme": "https"}, balance={"replicas": {"127.0.0.1:1": {"weight": 0.5}}}
    )

    assert after is before
    assert parts.proxy.engines.tls is before.tls


async def test_engines_that_are_called_otherwise_get_connections_of_their_own(parts: Parts) -> None:
    before = parts.apply()
    after = parts.apply(engine=DOCUMENT["engine"] | {"scheme": "https"})

    assert after is not before
    assert parts.proxy.engines.tls is after.tls is not None
