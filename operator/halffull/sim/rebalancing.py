"""The operator's rebalancer in a simulated run: it looks at engines and books, and routers get its weights. Called by `simulation`."""

from collections.abc import Sequence

from halffull.core import balance
from halffull.core.values import State
from halffull.sim.virtual_engine import VirtualEngine


class Rebalancing:
    """`core.balance` with what it needs of a run."""

    def __init__(self, engines: Sequence[VirtualEngine], interval_s: float) -> None:
        self._engines = engines
        self._settings = balance.Settings(stale_after_s=3 * interval_s)
        self._fleet = balance.Fleet()
        self.changes: list[tuple[float, balance.Change]] = []
        """with the times of them"""

    def round(self, now: float) -> None:
        """Look, decide, and tell the routers."""
        readings = {str(engine.index): self._reading(engine, now) for engine in self._engines}
        self._fleet, decision = balance.rebalance(
            balance.observe(self._fleet, readings, now, self._settings), now, self._settings
        )
        self.changes += [(now, change) for change in decision.changes]
        for engine in self._engines:
            name = str(engine.index)
            for page in engine.pages:
                page.replica.weight = decision.weights[name]
                page.replica.suspended = name in decision.suspended
                page.replica.distrusted = name in decision.distrusted

    def _reading(self, engine: VirtualEngine, now: float) -> balance.Reading:
        own = [page.replica.own for page in engine.pages]
        return balance.Reading(
            None if engine.down else engine.signals(now),
            in_flight=sum(page.load.in_flight for page in own),
            seen_tokens=sum(page.freed_tokens + page.load.decode_tokens for page in own),
            prefill_s=max(page.replica.prefill_work / page.replica.prefill_rate for page in engine.pages),
            down=any(page.replica.state is State.DOWN for page in engine.pages),
        )
