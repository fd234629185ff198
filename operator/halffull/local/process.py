"""Child processes of `halffull up`: each in a process group of its own, started again when it dies, never left behind.

Called by `engines` and `router`. The terminal's Ctrl-C does not reach the children, so that they are stopped in order. If
this process itself is killed, a `Guard` ends what is left: a shell that waits for the end of its input.
"""

import asyncio
import os
import signal
import subprocess
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Self

GUARD = """
groups=
while read -r line; do groups=$line; done
[ -z "$groups" ] && exit
for group in $groups; do kill -s TERM -- "-$group"; done
sleep 2
for group in $groups; do kill -s KILL -- "-$group"; done
"""
"""Each line read replaces the list of process groups to end once there is no more input."""
START_S = 60.0
"""time that a child may take until it is healthy, unless said otherwise"""
FIRST_LOOK_S, LAST_LOOK_S = 0.05, 1.0
"""between two questions whether it is; grows by half each time"""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""before a child is started again; doubles while it does not become healthy"""
LAST_LINES = 20
"""of a child's output, kept for the message when it does not start"""

Say = Callable[[str], None]


class StartError(Exception):
    """A child that ended, or was not healthy in time; says what it printed last."""


class Guard:
    """Ends the children when this process is gone, however it went; a context manager."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._closed = False
        self._shell: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        """Start the shell."""
        quiet = subprocess.DEVNULL
        self._shell = subprocess.Popen(  # noqa: S603 (nothing of a user's is in it)
            ["/bin/sh", "-c", GUARD], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
        )
        return self

    def __exit__(self, *_exception: object) -> None:
        """End all children that are left at once, and the shell."""
        self._closed = True
        for group in self._groups.copy():
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            self.forget(group)
        with suppress(BrokenPipeError):
            self._shell.communicate()

    def watch(self, group: int) -> None:
        """A process group was started."""
        if self._closed:
            os.killpg(group, signal.SIGKILL)
            return
        self._groups.add(group)
        self._tell()

    def forget(self, group: int) -> None:
        """The process group has ended."""
        self._groups.discard(group)
        self._tell()

    def _tell(self) -> None:
        if self._shell.stdin:
            with suppress(BrokenPipeError):
                self._shell.stdin.write(" ".join(map(str, self._groups)).encode() + b"\n")
                self._shell.stdin.flush()


class Process:
    """One child, from `start` to `stop`."""

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        healthy: Callable[[], Awaitable[bool]],
        *,
        guard: Guard,
        say: Say,
        environment: Mapping[str, str] | None = None,
        start_s: float = START_S,
    ) -> None:
        """`command` is asked anew at each start; `healthy` says whether the child serves; `say` gets its lines."""
        self.name = name
        self._command = command
        self._healthy = healthy
        self._guard = guard
        self._say = say
        self._start_s = start_s
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None]
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        return self._child.pid if self._child and self._child.returncode is None else None

    async def start(self) -> None:
        """Return once the child is healthy; it is kept running from then on. Raises StartError."""
        try:
            child = await self._launch()
        except BaseException:
            await self.stop(0.0)
            raise
        self._keeper = asyncio.create_task(self._keep(child))

    async def stop(self, grace_s: float) -> None:
        """End the child: SIGTERM, and SIGKILL to its whole group after `grace_s`."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._child:
            with suppress(ProcessLookupError):
                self._child.terminate()
            await self._end(self._child, grace_s)

    async def _launch(self) -> asyncio.subprocess.Process:
        """Start one child and wait until it is healthy."""
        loop = asyncio.get_running_loop()
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(f"{self.name} cannot be started: {error}") from error
        self._child = child
        self._guard.watch(child.pid)
        self._reader = asyncio.create_task(self._read(child))
        deadline = loop.time() + self._start_s
        look_s = FIRST_LOOK_S
        while not await self._healthy():
            if child.returncode is not None:
                await self._reader
                said = "".join(f"\n  {line}" for line in self._last)
                raise StartError(f"{self.name} ended with status {child.returncode} before it served{said}")
            if loop.time() > deadline:
                raise StartError(f"{self.name} did not serve within {self._start_s:g} s")
            await asyncio.sleep(look_s)
            look_s = min(1.5 * look_s, LAST_LOOK_S)
        return child

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None  # noqa: S101 (it was started with a pipe)
        while True:
            try:
                line = await child.stdout.readline()
            except ValueError:  # a line longer than the reader's limit: left out
                continue
            if not line:
                break
            text = line.decode(errors="replace").rstrip()
            self._last.append(text)
            self._say(f"{self.name}: {text}")

    async def _end(self, child: asyncio.subprocess.Process, grace_s: float) -> None:
        """Wait for the child's end, at most `grace_s`, and end what is left of its group."""
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), grace_s)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
        self._guard.forget(child.pid)

    async def _keep(self, child: asyncio.subprocess.Process) -> None:
        """Start the child again whenever it dies."""
        pause_s = SHORTEST_PAUSE_S
        while True:
            status = await child.wait()
            await self._end(child, 0.0)
            self._say(f"{self.name} ended with status {status}; starting it again")
            while True:
                await asyncio.sleep(pause_s)
                try:
                    child = await self._launch()
                    break
                except StartError as error:
                    self._say(str(error))
                    if self._child:
                        await self._end(self._child, 0.0)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._say(f"{self.name} serves again")
            pause_s = SHORTEST_PAUSE_S
