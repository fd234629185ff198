"""Connections to all replicas: the pools, and the tasks that open new connections. `proxy` uses it."""

import asyncio
import logging
from collections.abc import Callable
from ssl import SSLContext
from typing import Protocol

from halffull.core.books import Replica
from halffull.router.http.exhausted import ExhaustedError
from halffull.router.http.upstream import Pool, Upstream

LOG = logging.getLogger(__name__)
EXHAUSTED_PAUSE_S = 0.1
"""after which a connection is tried again that this process had no file for, or one that has come to rest is taken"""
EXHAUSTED_LOG_S = 60.0
"""... and how often that is logged"""


class Sender(Protocol):
    """What waits for a connection."""

    def connected(self, upstream: Upstream, replica: Replica, attempt: int) -> None:
        """The connection is there."""

    def unreachable(self, replica: Replica, attempt: int, reason: str) -> None:
        """There will be none."""

    def exhausted(self, replica: Replica, attempt: int) -> None:
        """There will be none, for which the replica cannot be blamed: this process can open no further one."""


class Engines:
    """One pool per replica."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pools: dict[Replica, Pool] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self.tls: SSLContext | None = None
        """how engines are reached by https; None: http"""
        self.connect_s = 5.0
        """longest time to open a connection"""
        self._exhausted_logged = -EXHAUSTED_LOG_S

    def trust(self, tls: SSLContext | None) -> None:
        """Open connections by this from now on; those that are open stay."""
        self.tls = tls
        for pool in self._pools.values():
            pool.tls = tls

    def add(self, replica: Replica) -> None:
        """A replica joined."""
        self._pools[replica] = Pool(replica.host, replica.port, self._clock, self.tls)

    def remove(self, replica: Replica) -> None:
        """A replica left; its busy connections go on until their answers end."""
        self._pools.pop(replica).close()

    def take(self, replica: Replica) -> Upstream | None:
        """Return an idle connection, or None."""
        pool = self._pools.get(replica)
        return pool.take() if pool else None

    def connect(self, replica: Replica, sender: Sender, attempt: int) -> None:
        """Open a connection for `sender`: the only task in a request's life, where no connection is idle."""
        pool = self._pools.get(replica)
        if pool is None:
            sender.unreachable(replica, attempt, "it has left")
            return
        task = asyncio.get_running_loop().create_task(self._connect(pool, replica, sender, attempt))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def prune(self, now: float) -> None:
        """Close what has been idle for too long."""
        for pool in self._pools.values():
            pool.prune(now)

    def close(self) -> None:
        """Close idle connections now, busy ones when they are done."""
        for pool in self._pools.values():
            pool.close()

    async def _connect(self, pool: Pool, replica: Replica, sender: Sender, attempt: int) -> None:
        try:
            upstream = await self._open(pool)
        except ExhaustedError:
            sender.exhausted(replica, attempt)
        except TimeoutError:
            sender.unreachable(replica, attempt, f"no answer within {self.connect_s:g} s")
        except OSError as error:
            sender.unreachable(replica, attempt, error.strerror or str(error))
        else:
            sender.connected(upstream, replica, attempt)

    async def _open(self, pool: Pool) -> Upstream:
        """Return a new connection or, where this process has no file for it, the first that it has one for. Raises as `connect`."""
        until = self._clock() + self.connect_s
        while True:
            try:
                return await pool.connect(self.connect_s)
            except ExhaustedError as error:
                now = self._clock()
                if now >= self._exhausted_logged + EXHAUSTED_LOG_S:
                    self._exhausted_logged = now
                    LOG.warning("no further connection to an engine can be opened: %s", error.strerror)
                if now >= until:
                    raise
            await asyncio.sleep(EXHAUSTED_PAUSE_S)
            rested = pool.take()
            if rested is not None:
                return rested
