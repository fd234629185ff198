"""Looks at engines that the data path suspects or has taken out: is it dead, does it work, is it back?

`app` makes one and calls `take` after each tick. A silent engine may only be busy: it is dead when it cannot be reached, does not
answer, or says in two looks that requests run while not one token moved (a vLLM that hangs, or got SIGTERM, keeps its
connections open, and its health path may go on saying 200).
"""

import asyncio
import logging
from collections.abc import Callable

from halffull.core.books import Replica
from halffull.core.health import Verdict
from halffull.core.values import Signals
from halffull.router.http.exhausted import ExhaustedError
from halffull.router.proxy import Proxy
from halffull.router.signals.scrape import Plan
from halffull.router.sources.engine_client import FAILURES
from halffull.router.supervision import RESTART_S

LOG = logging.getLogger(__name__)
LOOK_S = 2.0
"""longest wait for an answer"""
BETWEEN_S = 1.2
"""pause between two looks, in which a working engine makes tokens; its gauges lag by up to about a second"""


def stalled(before: Signals, after: Signals) -> str:
    """Return why two looks say that the engine does not work on what it was sent, or an empty text."""
    counters = [(before.prompt_tokens, after.prompt_tokens), (before.generation_tokens, after.generation_tokens)]
    if any(first is None or second is None for first, second in counters) or after.running is None:
        return ""  # it does not say
    if any(first != second for first, second in counters):
        return ""
    if after.running or after.waiting:
        return "it holds requests and makes no token"
    return "it has nothing to do, though requests were sent to it"


class Inspector:
    """Follows up on what the dispatcher noted of replicas."""

    def __init__(self, proxy: Proxy, plan: Callable[[], Plan], now: Callable[[], float]) -> None:
        """`plan`: how engines are asked now."""
        self._proxy = proxy
        self._plan = plan
        self._now = now
        self._looking: dict[Replica, asyncio.Task[None]] = {}

    def take(self) -> None:
        """Log and count what changed since the last call, once, and go and look."""
        dispatcher = self._proxy.dispatcher
        changes, dispatcher.transitions = dispatcher.transitions, []
        for replica, verdict, why in changes:
            level = logging.INFO if verdict in {Verdict.WELL, Verdict.TRIAL} else logging.WARNING
            LOG.log(level, "replica %s is %s: %s", replica.name, verdict.value, why)
            self._proxy.telemetry.verdicts[replica.name, verdict.value] += 1
            if verdict in {Verdict.SUSPECT, Verdict.OUT} and replica not in self._looking:
                self._looking[replica] = asyncio.get_running_loop().create_task(self._look_after(replica))

    def close(self) -> None:
        """Look no longer."""
        for task in self._looking.values():
            task.cancel()

    async def _look_after(self, replica: Replica) -> None:
        """Until it is well, or gone."""
        try:
            await self._until_well(replica)
        finally:
            del self._looking[replica]

    async def _until_well(self, replica: Replica) -> None:
        health = replica.health
        while self._proxy.dispatcher.books.replicas.get(replica.name) is replica:
            left_s = health.out_until - self._now()
            if health.verdict in {Verdict.WELL, Verdict.TRIAL}:
                return
            if health.verdict is Verdict.OUT and left_s > 0 and not health.silent:
                await asyncio.sleep(min(left_s, BETWEEN_S))
            else:
                try:
                    await self._inspect(replica, health.verdict)
                except ExhaustedError:
                    await asyncio.sleep(RESTART_S)  # nobody looked
                except Exception:  # a fault of ours must not leave it out for good
                    LOG.exception("looking at replica %s failed in an unexpected way; again", replica.name)
                    await asyncio.sleep(RESTART_S)

    async def _inspect(self, replica: Replica, verdict: Verdict) -> None:
        """Look at a replica that is suspected, or at one that is out: its time has come, or the streams that it holds fell silent.

        What a dead one holds is tried elsewhere. One that is out may be shutting down: it takes no connection and may still
        complete what it has, so only its silence counts for that.
        """
        health, plan = replica.health, self._plan()
        suspected = verdict is Verdict.SUSPECT
        why = await (self._why_dead(plan, replica) if suspected else self._why_not_back(plan, replica))
        if health.verdict is not verdict:
            return  # it was heard meanwhile
        hangs = suspected or health.silent
        well = "it works" if suspected else "it is back"
        self._proxy.dispatcher.judged(replica, self._now(), alive=not why, why=why or well)
        if why and hangs:
            self._proxy.died(replica, why)

    async def _why_not_back(self, plan: Plan, replica: Replica) -> str:
        """Return why a replica that was taken out does not come back yet, or an empty text."""
        try:
            status, _ = await plan.client.get(replica.address, plan.adapter.container.health_path, LOOK_S)
        except ExhaustedError:
            raise
        except FAILURES as error:
            return f"it cannot be reached: {type(error).__name__}"
        return await self._why_dead(plan, replica, may_rest=True) if status == 200 else f"it answers {status}"

    async def _why_dead(self, plan: Plan, replica: Replica, *, may_rest: bool = False) -> str:
        """Look twice at its metrics; return why it is dead, or an empty text. One that `may_rest` is well if it runs nothing."""
        before = await self._signals(plan, replica)
        if isinstance(before, str):
            return before
        if may_rest and not before.running:
            return ""
        await asyncio.sleep(BETWEEN_S)
        after = await self._signals(plan, replica)
        return after if isinstance(after, str) else stalled(before, after)

    async def _signals(self, plan: Plan, replica: Replica) -> Signals | str:
        """One look at its metrics, or why there is none. Raises ExhaustedError. An engine without metrics says nothing, which is not death."""
        try:
            status, body = await plan.client.get(replica.address, plan.adapter.metrics_path, LOOK_S)
        except ExhaustedError:
            raise
        except FAILURES as error:
            return f"it does not answer: {type(error).__name__}"
        return plan.adapter.signals(body) if status == 200 else Signals()
