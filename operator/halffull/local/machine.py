"""Runs on this machine what the files ask for, and follows them. Called by `up` and by `demo`."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import aiohttp

from halffull.api.errors import DocumentError
from halffull.local.deployment import Deployment
from halffull.local.documents import Files, Key, Wanted
from halffull.local.process import Guard, Say, StartError

LOOK_S = 0.15
"""between two looks at the files; an edit is taken over after two"""
ANSWER_S = 2.0
"""time that an engine or a router may take to answer a question about itself"""


class Machine:
    """All ModelDeployments of some files; an async context manager. Nothing it started outlives it."""

    def __init__(
        self, paths: Sequence[Path], *, host: str, port: int, admin_port: int, say: Say, record: Path | None = None
    ) -> None:
        """The first ModelDeployment gets `port` and `admin_port`, each further one the next two; 0: free ones.

        `record`: directory where each router records its requests; None: in its own, if its ModelDeployment says so.
        """
        self._files = Files(paths)
        self._host = host
        self._ports = (port, admin_port)
        self._say = say
        self._record = record
        self._guard = Guard()
        self._folder = TemporaryDirectory(prefix="halffull-")
        self._deployments: dict[Key, Deployment] = {}
        self._starts: dict[Key, asyncio.Task[None]] = {}
        self._ends: set[asyncio.Task[None]] = set()
        self._places: dict[Key, int] = {}
        self._session: aiohttp.ClientSession

    @property
    def deployments(self) -> Mapping[Key, Deployment]:
        """Those that run, by namespace and name."""
        return self._deployments

    async def __aenter__(self) -> Self:
        """Start everything; raises DocumentError, StartError or OSError, and then leaves nothing running."""
        wanted = self._files.load()
        if self._record is not None:
            self._record.mkdir(parents=True, exist_ok=True)
        self._guard.__enter__()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S))
        try:
            await self._start(wanted)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything: routers once their open answers have ended, then engines."""
        await self._stop()

    async def follow(self, announce: Callable[[Deployment], None]) -> None:
        """Follow the files until cancelled; `announce` is called with each ModelDeployment that was added."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._files.changed():
                continue
            try:
                wanted = {each.deployment.key: each for each in self._files.load()}
            except DocumentError as error:
                self._say("not taken over, what runs stays as it is:")
                for line in error.lines:
                    self._say(f"  {line}")
                continue
            for key in self._deployments.keys() - wanted.keys():
                self._say(f"{key[1]}: no longer in the files, stopping")
                self._remove(key)
            for key in self._deployments.keys() & wanted.keys():
                self._deployments[key].follow(wanted[key])
            for key in wanted.keys() - self._deployments.keys():
                self._deployments[key] = self._deployment(wanted[key])
                self._starts[key] = asyncio.create_task(self._add(key, announce))

    async def _start(self, wanted: Sequence[Wanted]) -> None:
        """Start ModelDeployments side by side; raises StartError or OSError if one does not start."""
        self._deployments = {each.deployment.key: self._deployment(each) for each in wanted}
        try:
            async with asyncio.TaskGroup() as starts:
                for deployment in self._deployments.values():
                    starts.create_task(deployment.start())
        except* (StartError, OSError) as errors:
            raise first_error(errors) from errors

    async def _add(self, key: Key, announce: Callable[[Deployment], None]) -> None:
        """Start one more; where it does not start it is tried again at the next edit."""
        if self._ends:
            await asyncio.wait(self._ends)  # one of the same name may still hold the ports
        try:
            await self._deployments[key].start()
        except* (StartError, OSError) as errors:
            self._say(f"{key[1]} does not start: {first_error(errors)}")
            self._remove(key)
        else:
            announce(self._deployments[key])

    def _remove(self, key: Key) -> None:
        """Stop one, without waiting for it."""
        task = asyncio.create_task(self._end(self._deployments.pop(key), self._starts.pop(key, None)))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _end(self, deployment: Deployment, start: asyncio.Task[None] | None) -> None:
        if start:
            start.cancel()
            await asyncio.wait([start])
        await deployment.stop()

    def _deployment(self, wanted: Wanted) -> Deployment:
        place = self._places.setdefault(wanted.deployment.key, len(self._places))
        port, admin_port = (first + place if first else 0 for first in self._ports)
        folder = Path(self._folder.name) / str(place)
        return Deployment(
            wanted,
            host=self._host,
            port=port,
            admin_port=admin_port,
            folder=folder,
            session=self._session,
            guard=self._guard,
            say=self._say,
            record=self._record,
        )

    async def _stop(self) -> None:
        try:
            for key in list(self._deployments):
                self._remove(key)
            await asyncio.gather(*self._ends)
        finally:
            self._guard.__exit__()
            await self._session.close()
            self._folder.cleanup()


def first_error(errors: BaseExceptionGroup[Exception]) -> Exception:
    """One error of a group: the others are cancellations that it caused, or say the same."""
    for error in errors.exceptions:
        return first_error(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
