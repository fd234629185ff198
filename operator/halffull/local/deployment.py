"""One ModelDeployment on this machine: its engine processes, its router, and the rebalancer between them.

Called by `machine`. What the operator does in a cluster, with the same `router_config` and the same rebalancer.
"""

import asyncio
from pathlib import Path

import aiohttp

from halffull.api.model_deployment import ModelDeployment
from halffull.api.router_config import Balance, ReplicaBalance, RouterConfig
from halffull.api.scheduling import Scheduling
from halffull.controller.readings import balance_settings, carried, reading
from halffull.controller.router_config import balanced, router_config
from halffull.core import balance
from halffull.local.documents import Wanted
from halffull.local.engines import Engines, read_signals
from halffull.local.process import Guard, Say, StartError
from halffull.local.router_process import RouterProcess

APPLIED_S = 10.0
"""time in which a router should have taken a new configuration"""
RETRY_S = 5.0
"""pause after engines that could not be started"""


class Deployment:
    """From `start` to `stop`; `follow` takes every change of the files."""

    def __init__(
        self,
        wanted: Wanted,
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
        self.wanted = wanted
        """as the files have it"""
        name = wanted.deployment.metadata.name
        self._folder = folder
        self._session = session
        self._say = say
        self.router = RouterProcess(
            name,
            host=host,
            port=port,
            admin_port=admin_port,
            folder=folder,
            session=session,
            guard=guard,
            say=say,
            record=record / f"{name}.jsonl" if record else None,
        )
        self.engines = Engines(session, guard, say, changed=self._publish, released=self.router.released)
        self._balance = Balance()
        self._config: RouterConfig | None = None
        self._unwritten = ""
        """why the configuration could not be written; empty: it was"""
        self._edited = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        """Of the resource."""
        return self.wanted.deployment.metadata.name

    @property
    def config(self) -> RouterConfig | None:
        """What the router was told last."""
        return self._config

    @property
    def replicas(self) -> list[str]:
        """Names of all replicas, `host:port`."""
        fixed = self.wanted.deployment.spec.engine.endpoints
        return [*fixed] if fixed is not None else self.engines.names

    async def start(self) -> None:
        """Return once engines and router serve; raises StartError or OSError, and a group of them where engines do."""
        self._folder.mkdir(exist_ok=True)
        if missing := self.wanted.missing_policy:
            self._say(f"{self.name}: no file has the SchedulingPolicy {missing}; policy sal until one has")
        self._publish()
        if self.wanted.deployment.spec.engine.template:
            self._say(f"{self.name}: starting {self.wanted.deployment.spec.replicas} engines")
        await self.engines.follow(self.wanted.deployment)
        await self.router.start()
        self._tasks = [asyncio.create_task(self._keep_engines()), asyncio.create_task(self._rebalance())]

    def follow(self, wanted: Wanted) -> None:
        """Take a change: the router is told at once, engines follow."""
        before, self.wanted = self.wanted, wanted
        if self._config is None:
            return  # it has not begun to start, and will with this
        if missing := wanted.missing_policy:
            self._say(f"{self.name}: no file has the SchedulingPolicy {missing}; the last one stays")
        old = self._config
        self._publish()
        new = self._config
        if old.hash != new.hash:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks.append(asyncio.create_task(self._report(old, new)))
        if before.deployment.spec != wanted.deployment.spec:
            self._edited.set()

    async def stop(self) -> None:
        """End the router, once open answers have ended, and then the engines."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.router.stop(self.wanted.deployment.spec.router.drain.seconds)
        await self.engines.stop()

    def _publish(self) -> None:
        """Tell the router what is so now; says nothing new where nothing is.

        What cannot be written, as on a full disk, stays as it was until the next time. Raises OSError where nothing was yet.
        """
        draining = {*self.engines.draining, *self.wanted.deployment.spec.engine.drain}
        entries = self._balance.replicas | {
            name: self._balance.replicas.get(name, ReplicaBalance()).model_copy(update={"drain": True})
            for name in draining
        }
        config = router_config(
            _without_kubernetes(self.wanted.deployment),
            self.wanted.policy,
            self._config,
            self._balance.model_copy(update={"replicas": entries}),
            endpoints=self.replicas,
        )
        if config == self._config:
            return
        try:
            self.router.publish(config)
        except OSError as error:
            if self._config is None:
                raise
            if str(error) != self._unwritten:
                self._say(f"{self.name}: what is new cannot be written, the last configuration stays: {error}")
            self._unwritten = str(error)
        else:
            self._config, self._unwritten = config, ""

    async def _report(self, old: RouterConfig, new: RouterConfig) -> None:
        """Say when the router has taken an edit."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        error = await self.router.applied(new, APPLIED_S)
        what = "edit"
        if old.scheduling.policy != new.scheduling.policy:
            what = f"policy {old.scheduling.policy} -> {new.scheduling.policy}"
        if error is None:
            self._say(f"{self.name}: {what} applied after {loop.time() - start:.2f} s")
        elif self._config and self._config.hash == new.hash:
            self._say(f"{self.name}: {what} not applied: {error}")

    async def _keep_engines(self) -> None:
        """Bring the engine processes in line with each edit of the ModelDeployment."""
        while True:
            await self._edited.wait()
            self._edited.clear()
            try:
                await self.engines.follow(self.wanted.deployment)
            except* (StartError, OSError) as errors:
                for error in errors.exceptions:
                    self._say(str(error))
                await asyncio.sleep(RETRY_S)
                self._edited.set()

    async def _rebalance(self) -> None:
        """Weigh the replicas by their speed, on the interval of the operator's rebalancer."""
        loop = asyncio.get_running_loop()
        fleet, renewed_at = carried(self._balance), 0.0
        while True:
            config = self._config
            interval_s = config.scheduling.rebalance.interval_seconds if config else RETRY_S
            await self._rest(interval_s)
            settings = balance_settings(config.scheduling if config else Scheduling())
            fleet = balance.observe(fleet, await self._readings(), loop.time(), settings)
            fleet, decision = balance.rebalance(fleet, loop.time(), settings)
            for change in decision.changes:
                self._say(f"{self.name}: replica {change.replica} {change.reason}")
            renew = loop.time() - renewed_at > self._balance.renew_seconds
            if renew:
                renewed_at = loop.time()
            reasons = {change.replica: change.reason for change in decision.changes}
            self._balance = balanced(self._balance, self.replicas, decision, reasons, renew=renew)
            self._publish()

    async def _rest(self, seconds: float) -> None:
        """Wait so long; what the router would let lapse meanwhile is published again."""
        while seconds > (renew_s := max(self._balance.renew_seconds, 1.0)):
            await asyncio.sleep(renew_s)
            seconds -= renew_s
            if self._balance.replicas:
                self._balance = self._balance.model_copy(update={"renewed": self._balance.renewed + 1})
                self._publish()
        await asyncio.sleep(seconds)

    async def _readings(self) -> dict[str, balance.Reading]:
        """What replicas and router say now."""
        engine = self.wanted.deployment.spec.engine
        names = self.replicas
        signals = await asyncio.gather(
            *(read_signals(self._session, f"{engine.scheme}://{name}", engine.type) for name in names)
        )
        status = await self.router.status()
        return {name: reading(said, name, [status]) for name, said in zip(names, signals, strict=True)}


def _without_kubernetes(deployment: ModelDeployment) -> ModelDeployment:
    """The same without the pause in which a Service still sends requests to a router that stops."""
    router = deployment.spec.router
    drain = router.drain.model_copy(update={"accept_seconds": 0.0})
    spec = deployment.spec.model_copy(update={"router": router.model_copy(update={"drain": drain})})
    return deployment.model_copy(update={"spec": spec})
