"""The engine processes of one ModelDeployment: as many as `replicas` says, with the arguments of its template.

Called by `deployment`. A change of the template replaces them one by one, as a roll-out in a cluster does: the new one
serves before the old one gets nothing more, and the old one ends when its last answer has.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from random import SystemRandom
from socket import SO_REUSEADDR, SOL_SOCKET, socket

import aiohttp

from halffull.api.model_deployment import ModelDeployment
from halffull.core.values import Signals
from halffull.engines.catalog import ENGINES
from halffull.local.process import START_S, Guard, Process, Say

HOST = "127.0.0.1"
PORTS = range(20_000, 30_000)
"""ports of engines are drawn from these: below those that systems give to outgoing connections"""
STOP_S = 5.0
"""from SIGTERM to SIGKILL for an engine with nothing to do"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one engine is started, but for its port; a replica with another recipe is out of date."""

    engine_type: str
    model: str
    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    gpus: int = 0


def recipe(deployment: ModelDeployment) -> Recipe | None:
    """How the engines of a ModelDeployment are started; None if it has fixed endpoints."""
    spec = deployment.spec
    template = spec.engine.template
    if template is None:
        return None
    command = tuple(template.command or ENGINES[spec.engine.type].container.command)
    if command[:1] == ("halffull",):
        command = (sys.executable, "-m", *command, "--host", HOST)
    environment = tuple((variable.name, variable.value or "") for variable in template.env)
    return Recipe(spec.engine.type, spec.model, command, tuple(template.args), environment, template.gpus)


def free_port(taken: Container[int]) -> int:
    """A port of this machine that nobody listens on now, nor is to (`taken`); raises OSError if there is none."""
    for port in SystemRandom().sample(PORTS, len(PORTS)):
        if port in taken:
            continue
        with socket() as probe, suppress(OSError):
            probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise OSError("no free port")


class Replica:
    """One engine process."""

    def __init__(self, number: int, recipe: Recipe, port: int, session: aiohttp.ClientSession) -> None:
        self.number = number
        self.recipe = recipe
        self.port = port
        self.process: Process
        self._container = ENGINES[recipe.engine_type].container
        self._session = session

    @property
    def name(self) -> str:
        """Its name for the router: `host:port`."""
        return f"{HOST}:{self.port}"

    def command(self) -> list[str]:
        """The command line: the template's, and what the engine needs besides."""
        return [*self.recipe.command, *self._container.args(self.port, self.recipe.model, self.recipe.args)]

    def environment(self) -> dict[str, str]:
        """Variables of the template; with `gpus`, the GPUs of this replica, by its number."""
        variables = dict(self.recipe.environment)
        if gpus := self.recipe.gpus:
            first = self.number * gpus
            variables.setdefault("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(first, first + gpus))))
        return variables

    async def healthy(self) -> bool:
        """Whether it answers."""
        try:
            async with self._session.get(f"http://{self.name}{self._container.health_path}") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


async def read_signals(session: aiohttp.ClientSession, url: str, engine_type: str) -> Signals | None:
    """The metrics of the engine at `url`; None if they cannot be read."""
    adapter = ENGINES[engine_type]
    try:
        async with session.get(url + adapter.metrics_path) as response:
            return adapter.signals(await response.read()) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError):
        return None


class Engines:
    """All engine processes of one ModelDeployment."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        guard: Guard,
        say: Say,
        *,
        changed: Callable[[], None],
        released: Callable[[str], Awaitable[None]],
    ) -> None:
        """`changed` is called when `names` or `draining` have changed; `released` waits until the router sends nothing
        more to a replica, by name, and all its answers have ended.
        """
        self._session = session
        self._guard = guard
        self._say = say
        self._changed = changed
        self._released = released
        self._serving: list[Replica] = []
        self._starting: set[Replica] = set()
        self._retiring: dict[asyncio.Task[None], Replica] = {}

    @property
    def names(self) -> list[str]:
        """Those that serve, the draining ones included."""
        return [replica.name for replica in (*self._serving, *self._retiring.values())]

    @property
    def draining(self) -> list[str]:
        """Those that get nothing new."""
        return [replica.name for replica in self._retiring.values()]

    async def follow(self, deployment: ModelDeployment) -> None:
        """Make them as many and as new as `deployment` says; raises StartError."""
        wanted = recipe(deployment)
        target = deployment.spec.replicas if wanted else 0
        drain_s = deployment.spec.router.drain.seconds
        for replica in self._serving[target:]:
            self._retire(replica, drain_s)
        if wanted is None:
            return
        for replica in [replica for replica in self._serving if replica.recipe != wanted]:
            await self._start(replica.number, wanted, deployment)
            self._retire(replica, drain_s)
        free = (number for number in count() if number not in {replica.number for replica in self._serving})
        numbers = [next(free) for _ in range(target - len(self._serving))]
        async with asyncio.TaskGroup() as starts:
            for number in numbers:
                starts.create_task(self._start(number, wanted, deployment))

    async def stop(self) -> None:
        """End all of them."""
        for task in self._retiring:
            task.cancel()
        replicas = [*self._serving, *self._starting, *self._retiring.values()]
        await asyncio.gather(*(replica.process.stop(STOP_S) for replica in replicas))

    async def _start(self, number: int, recipe: Recipe, deployment: ModelDeployment) -> None:
        taken = {other.port for other in (*self._serving, *self._starting, *self._retiring.values())}
        replica = Replica(number, recipe, free_port(taken), self._session)
        replica.process = Process(
            f"{deployment.metadata.name} engine {number} ({replica.name})",
            replica.command,
            replica.healthy,
            guard=self._guard,
            say=self._say,
            environment=replica.environment(),
            start_s=template.startup_seconds if (template := deployment.spec.engine.template) else START_S,
        )
        self._starting.add(replica)
        try:
            await replica.process.start()
        finally:
            self._starting.discard(replica)
        self._serving.append(replica)
        self._serving.sort(key=lambda each: each.number)
        self._changed()

    def _retire(self, replica: Replica, drain_s: float) -> None:
        """Send it nothing more, end it when its answers have ended or after `drain_s`."""
        self._serving.remove(replica)
        task = asyncio.create_task(self._end(replica, drain_s))
        self._retiring[task] = replica
        task.add_done_callback(self._ended)
        self._changed()

    async def _end(self, replica: Replica, drain_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._released(replica.name)
        await replica.process.stop(STOP_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        replica = self._retiring.pop(task)
        if not task.cancelled():
            self._say(f"{replica.process.name} has ended")
            self._changed()
