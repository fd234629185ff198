"""The keyed queue: each key is worked on by one worker at a time, failures come back with backoff. Fed and run by `app`.

A key woken while it waits is worked on once; woken while it runs it runs again afterwards.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

LOG = logging.getLogger(__name__)
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 60.0

K = TypeVar("K", bound=Hashable)


class KeyedQueue(Generic[K]):
    """Runs `work(key)` for each key that is woken, in order of waking, on a few workers."""

    def __init__(self, work: Callable[[K], Awaitable[None]], failed: Callable[[K, Exception], None]) -> None:
        self._work = work
        self._failed = failed
        self._waiting: dict[K, None] = {}
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._wakened = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait."""
        return len(self._waiting)

    def wake(self, key: K) -> None:
        """Have `key` worked on as soon as a worker is free."""
        if key in self._running:
            self._again.add(key)
        else:
            self._waiting[key] = None
            self._wakened.set()

    def wake_later(self, key: K, seconds: float) -> None:
        """Wake `key` after that time; of several such calls the earliest holds, and ends the others."""
        loop = asyncio.get_running_loop()
        pending = self._timers.get(key)
        if pending is not None:
            if pending.when() <= loop.time() + seconds:
                return
            pending.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.wake(key)

    async def run(self, workers: int = 4) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._worker())
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    async def _worker(self) -> None:
        while True:
            while not self._waiting:
                self._wakened.clear()
                await self._wakened.wait()
            key = next(iter(self._waiting))
            del self._waiting[key]
            self._running.add(key)
            try:
                await self._attempt(key)
            finally:
                self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.wake(key)

    async def _attempt(self, key: K) -> None:
        """Work on `key` once; the boundary at which any failure becomes a retry."""
        try:
            await self._work(key)
        except Exception as error:  # noqa: BLE001 - whatever fails is reported and tried again
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            self._failed(key, error)
            self.wake_later(key, min(FIRST_BACKOFF_S * 2.0 ** min(failures, 10), LONGEST_BACKOFF_S))
        else:
            self._failures.pop(key, None)
