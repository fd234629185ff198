"""Periodic work: for each ModelDeployment a loop that asks its engines and routers and weighs the replicas.

`reconcile` starts and stops the loops; each round leaves its findings in the record and wakes the ModelDeployment, whose
reconcile publishes them.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from halffull.api.router_config import Balance
from halffull.controller.endpoints import Endpoint
from halffull.controller.facts import RouterAnswer
from halffull.controller.metrics import Metrics
from halffull.controller.names import Key
from halffull.controller.observed import Observed
from halffull.controller.readings import balance_settings, carried, reading
from halffull.controller.records import Record, Records
from halffull.controller.scrape import Scraper
from halffull.core import balance, scaling
from halffull.core.values import Signals
from halffull.engines.catalog import ENGINES

LOG = logging.getLogger(__name__)
JITTER = 0.1
"""share of the interval by which rounds are spread, so that ModelDeployments do not scrape in step"""
TICK_S = 0.001
"""what the clock of an event loop tells apart; shorter waits would spin"""
FIRST_LOOK_S = 0.05
"""after a new configuration its routers are asked soon, and then at doubling intervals"""


class Rounds:
    """All loops."""

    def __init__(
        self,
        observed: Observed,
        records: Records,
        scraper: Scraper,
        *,
        wake: Callable[[Key], None],
        metrics: Metrics,
        rng: Random,
    ) -> None:
        self._observed = observed
        self._records = records
        self._scraper = scraper
        self._wake = wake
        self._metrics = metrics
        self._rng = rng
        self._loops: dict[Key, asyncio.Task[None]] = {}
        self._pokes: dict[Key, asyncio.Event] = {}

    def follow(self, key: Key) -> None:
        """Start the loop of a ModelDeployment, unless it runs."""
        if key not in self._loops:
            self._pokes[key] = asyncio.Event()
            self._loops[key] = asyncio.create_task(self._loop(key), name=f"rounds {key}")

    def leave(self, key: Key) -> None:
        """End the loop of a ModelDeployment."""
        loop = self._loops.pop(key, None)
        self._metrics.forget(key)
        if loop is not None:
            loop.cancel()
            del self._pokes[key]

    def stop(self) -> None:
        """End all loops."""
        for key in list(self._loops):
            self.leave(key)

    def poke(self, key: Key) -> None:
        """Have the routers asked soon: a new configuration was published."""
        if key in self._pokes:
            self._pokes[key].set()

    async def _loop(self, key: Key) -> None:
        """Weigh, then watch the routers until the next round, again and again. What engines and routers say comes from outside:
        a form that nobody foresaw costs a round, not all that follow.
        """
        while (record := self._records.get(key)) is not None and record.config is not None:
            pause_s = record.config.scheduling.rebalance.interval_seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
            try:
                await self._weigh(key, record)
                await self._watch_routers(key, record, pause_s)
            except Exception:
                LOG.exception("%s: a round failed; the next one comes in its time", key)
                await asyncio.sleep(pause_s)
        self._loops.pop(key, None)
        self._pokes.pop(key, None)

    async def _watch_routers(self, key: Key, record: Record, pause_s: float) -> None:
        """Wait so long; ask routers that have not applied the published configuration soon, then ever later.

        What routers would let lapse meanwhile is published again.
        """
        now, poke, look_s = asyncio.get_running_loop().time, self._pokes[key], FIRST_LOOK_S
        until = now() + pause_s
        while (left_s := until - now()) > TICK_S:
            poke.clear()
            behind = self._behind(key, record)
            balance = record.config.balance if record.config else Balance()
            renew_s = max(balance.renew_seconds, 1.0)
            wait_s = min(left_s, renew_s, look_s if behind else left_s)
            try:
                async with asyncio.timeout(wait_s):
                    await poke.wait()
                look_s = FIRST_LOOK_S
            except TimeoutError:
                if balance.replicas and wait_s == renew_s:
                    self._wake(key)
                if behind:
                    look_s *= 2
                    await self._ask(key, record)

    def _behind(self, key: Key, record: Record) -> bool:
        """Whether a ready router has not reported the published configuration yet."""
        wanted = record.config.hash if record.config else ""
        return any(
            record.answers.get(router.name, RouterAnswer()).config.get("hash") != wanted
            for router in self._observed.routers(key)
            if router.ready
        )

    async def _ask(self, key: Key, record: Record) -> None:
        """Ask the routers only."""
        answers = await self._scraper.routers(self._observed.routers(key), record.credentials)
        if answers != record.answers:
            record.answers = answers
            self._wake(key)

    async def _weigh(self, key: Key, record: Record) -> None:
        """Ask everybody, and let the rebalancer decide."""
        config = record.config
        document = self._observed.deployments.get(key)
        if config is None or document is None:
            return
        engines = self._observed.engines_of(key, document)
        before = (record.signals, record.answers, record.decision, record.demand.desired)
        record.signals, record.answers = await asyncio.gather(
            self._scraper.engines(engines, ENGINES[config.engine.type], record.credentials),
            self._scraper.routers(self._observed.routers(key), record.credentials),
        )
        now = asyncio.get_running_loop().time()
        settings = balance_settings(config.scheduling)
        if record.fleet is None:
            record.fleet = carried(config.balance)
        fleet = balance.observe(record.fleet, readings(engines, record.signals, record.answers), now, settings)
        record.fleet, record.decision = balance.rebalance(fleet, now, settings)
        record.changes += record.decision.changes
        serving = {engine.name: record.signals.get(engine.name) for engine in engines if not engine.terminating}
        wanted = wanted_replicas(document, len(serving))
        record.demand = scaling.scaled(record.demand, serving, queued(record.answers), wanted, now=now)
        self._metrics.demand(key, record.demand)
        self._metrics.rebalanced.inc(len(record.decision.changes))
        after = (record.signals, record.answers, record.decision, record.demand.desired)
        if after != before or config.balance.replicas:  # what is not neutral is to be renewed
            self._wake(key)


def wanted_replicas(document: Mapping[str, Any], found: int) -> int:
    """Return the replicas that are asked for: as the resource says where it starts them, else those that are found."""
    spec = document["spec"]
    return int(spec.get("replicas", 1)) if "template" in spec["engine"] else found


def queued(answers: Mapping[str, RouterAnswer]) -> int:
    """Return the requests that wait in all routers."""
    queues = [(answer.document or {}).get("queue") or {} for answer in answers.values()]
    return sum(int(queue.get("requests") or 0) for queue in queues)


def readings(
    engines: tuple[Endpoint, ...], signals: Mapping[str, Signals], answers: Mapping[str, RouterAnswer]
) -> dict[str, balance.Reading]:
    """Return what the rebalancer takes: of each engine its signals and what the routers have there; pure."""
    documents = [answer.document for answer in answers.values()]
    return {engine.name: reading(signals.get(engine.name), engine.name, documents) for engine in engines}
