"""Pulls what engines say of themselves into the books: signals and KV capacity from metrics, names from model lists.

`fleet` tells it which replicas there are; `app` makes it. One task per replica, spread over the interval. Routers that are
peers share the work: each asks the engines that it owns and tells the others, who ask themselves only where nothing comes.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from halffull.api.engine import EngineLimits
from halffull.core.books import Replica
from halffull.core.contracts import Rng
from halffull.core.values import Signals
from halffull.engines.base import Adapter
from halffull.router.sources.engine_client import FAILURES, EngineClient
from halffull.router.supervision import again

LOG = logging.getLogger(__name__)
MODELS_INTERVAL_S = 15.0
OVERDUE = 3
"""intervals without a peer's word after which a router asks for itself"""
LIMIT_S = 5.0
"""longest wait for one answer; a busy engine's API process is slow but not dead"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How engines are asked; replaced as a whole when the configuration changes."""

    client: EngineClient
    adapter: Adapter
    interval_s: float = 1.0
    """seconds between two scrapes of one replica"""
    limits: EngineLimits = EngineLimits()  # noqa: RUF009  # frozen
    """what the user says of the engines; it wins over their own word"""


class Scraper:
    """Follows the metrics of all replicas that it was told of and owns."""

    def __init__(
        self,
        plan: Plan,
        now: Callable[[], float],
        rng: Rng,
        scraped: Callable[[Replica], None],
        *,
        owns: Callable[[Replica], bool] = lambda _: True,
        share: Callable[[Replica], None] = lambda _: None,
    ) -> None:
        """`scraped` is called when something new is known of a replica, `share` when this router asked for it."""
        self._plan = plan
        self._now = now
        self._rng = rng
        self._scraped = scraped
        self._owns = owns
        self._share = share
        self._tasks: dict[Replica, asyncio.Task[None]] = {}
        self.scrapes = 0
        self.failures = 0

    @property
    def plan(self) -> Plan:
        """How engines are asked now."""
        return self._plan

    def configure(self, plan: Plan) -> None:
        """Go on by another plan."""
        self._plan = plan
        for replica in self._tasks:
            self._limit(replica)

    def added(self, replica: Replica) -> None:
        """Follow one more replica."""
        self._limit(replica)
        work = again(partial(self._follow, replica), f"scraping {replica.name}")
        self._tasks[replica] = asyncio.get_running_loop().create_task(work)

    def removed(self, replica: Replica) -> None:
        """Follow it no longer."""
        if task := self._tasks.pop(replica, None):
            task.cancel()

    def close(self) -> None:
        """Follow none."""
        for replica in list(self._tasks):
            self.removed(replica)

    def _limit(self, replica: Replica) -> None:
        """Set what does not come from the engine's metrics."""
        limits, usual = self._plan.limits, self._plan.adapter.defaults
        replica.max_sequences = limits.max_sequences or usual.max_sequences
        replica.max_batched_tokens = limits.max_batched_tokens or usual.max_batched_tokens
        replica.prefill_rate_told = limits.prefill_tokens_per_second
        if limits.kv_tokens is not None:
            replica.kv_tokens = limits.kv_tokens

    async def _follow(self, replica: Replica) -> None:
        # The first look comes soon, since capacities are wanted; the phases of a fleet are spread from the second on.
        await asyncio.sleep(0.1 * self._rng.random())
        models_due = self._now()
        while True:
            if self._owns(replica) or self._now() - replica.signals_at > OVERDUE * self._plan.interval_s:
                await self._metrics(replica)
                if self._now() >= models_due:
                    found = await self._models(replica)
                    models_due = self._now() + (MODELS_INTERVAL_S if found else self._plan.interval_s)
            await asyncio.sleep(self._plan.interval_s * (0.75 + 0.5 * self._rng.random()))  # in no common phase

    async def _metrics(self, replica: Replica) -> None:
        """Scrape once. A failure leaves what was known: its age tells how stale it is."""
        plan = self._plan
        self.scrapes += 1
        try:
            status, body = await plan.client.get(replica.address, plan.adapter.metrics_path, LIMIT_S)
        except FAILURES as error:
            self._failed(replica, f"{type(error).__name__}: {error}")
            return
        if status != 200:
            self._failed(replica, f"HTTP {status}")
            return
        self.told(replica, plan.adapter.signals(body), self._now(), replica.models, replica.adapters.served)
        self._share(replica)

    def told(
        self, replica: Replica, signals: Signals, at: float, models: tuple[str, ...], adapters: tuple[str, ...] = ()
    ) -> None:
        """An engine said this of itself at the time `at`, to us or to a peer; `adapters` are those of `models` that are such."""
        if replica.signals is not None and at <= replica.signals_at:
            return
        replica.signals, replica.signals_at = signals, at
        if self._plan.limits.kv_tokens is None and signals.kv_tokens is not None:
            replica.kv_tokens = signals.kv_tokens
        if models:
            replica.models, replica.adapters.served = models, adapters
        self._scraped(replica)

    def _failed(self, replica: Replica, reason: str) -> None:
        self.failures += 1
        LOG.debug("metrics of %s at %s: %s", replica.name, replica.address, reason)

    async def _models(self, replica: Replica) -> bool:
        """Fetch the names that the engine serves; return whether it said any."""
        try:
            status, body = await self._plan.client.get(replica.address, "/v1/models", LIMIT_S)
            if status != 200:
                return False
            rows = msgspec.json.decode(body)["data"]
            names = tuple(str(row["id"]) for row in rows)
            adapters = tuple(str(row["id"]) for row in rows if row.get("parent"))
        except (*FAILURES, KeyError, TypeError, AttributeError, RecursionError) as error:
            LOG.debug("models of %s at %s: %s", replica.name, replica.address, error)
            return False
        if (names, adapters) != (replica.models, replica.adapters.served):
            replica.models, replica.adapters.served = names, adapters
            self._scraped(replica)
        return bool(names)
