"""Follows what engines publish of their prefix caches: vLLM's KV events over ZeroMQ, where the configuration asks for it.

`app` makes one `KvEvents`, which follows every replica of the fleet while it is configured; `core.kv_events` knows what they
mean for the prefix index. pyzmq is an extra (`kv-events`); where it is not installed, the index stays an estimate and says so.
Wire: frames topic, sequence number (8 bytes, big-endian), msgpack of [time, events, rank], each event a map with its `type`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any

import msgspec

from halffull.api.engine import KvEvents as Wanted
from halffull.core.books import Replica
from halffull.core.kv_events import Cleared, EngineCache, Event, Removed, Stored
from halffull.core.prefix import PrefixIndex
from halffull.core.values import Request
from halffull.router.sources.engine_client import FAILURES, EngineClient
from halffull.router.supervision import again

try:
    import zmq
    import zmq.asyncio
except ImportError:  # the extra is not installed
    zmq = None  # type: ignore[assignment]

LOG = logging.getLogger(__name__)
PORT = 5557
SOURCES_PATH = "/kv_event_sources"
LIMIT_S = 5.0
RETRY_S = 5.0
MISSING = "pyzmq is not installed: pip install 'halffull[kv-events]'"


class BlockStored(msgspec.Struct, tag=True):
    """The token ids are passed over."""

    block_hashes: list[int | bytes]
    parent_block_hash: int | bytes | None = None
    block_size: Annotated[int, msgspec.Meta(ge=1)] = 16
    medium: str | None = None
    group_idx: int | None = None
    session_id: str | None = None


class BlockRemoved(msgspec.Struct, tag=True):
    """Blocks that left one medium."""

    block_hashes: list[int | bytes]
    medium: str | None = None
    group_idx: int | None = None


class AllBlocksCleared(msgspec.Struct, tag=True):
    """The cache was reset."""


class Batch(msgspec.Struct, array_like=True):
    """One message; a third entry, the rank, is passed over."""

    ts: float
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]


_BATCH = msgspec.msgpack.Decoder(Batch)
_SOURCES = msgspec.json.Decoder(dict[str, dict[str, Any]])


def read(payload: bytes) -> list[Event]:
    """Return the events of one message that tell of the GPU's cache; of several kinds of cache, the first.

    Raises msgspec.DecodeError where it is none; vLLM before 0.26 sends events as arrays, which name no session.
    """
    found: list[Event] = []
    for event in _BATCH.decode(payload).events:
        if isinstance(event, AllBlocksCleared):
            found.append(Cleared())
        elif (event.medium or "GPU") == "GPU" and not event.group_idx:
            if isinstance(event, BlockStored):
                stored = Stored(event.block_hashes, event.parent_block_hash, event.block_size, event.session_id or "")
                found.append(stored)
            else:
                found.append(Removed(event.block_hashes))
    return found


class KvEvents:
    """One subscription per replica and rank."""

    def __init__(self, index: PrefixIndex, client: Callable[[], EngineClient]) -> None:
        """`client` returns what engines are asked with now."""
        self._index = index
        self._client = client
        self._wanted: Wanted | None = None
        self._context = None if zmq is None else zmq.asyncio.Context()
        self._tasks: dict[Replica, asyncio.Task[None]] = {}
        self.caches: dict[Replica, EngineCache] = {}
        self.errors: dict[Replica, str] = {}
        """why a replica's events are not followed now"""

    def configure(self, wanted: Wanted | None) -> None:
        """Follow the engines in this way from the next `follow` on; None: not at all."""
        if wanted != self._wanted:
            self._wanted = wanted
            self.follow(())

    def follow(self, replicas: Iterable[Replica]) -> None:
        """Follow these, and no others; to be called as the fleet changes, at least once a second."""
        there = set(replicas) if self._wanted is not None else set()
        for replica in self._tasks.keys() - there:
            self._tasks.pop(replica).cancel()
            self.caches.pop(replica, None)
            self.errors.pop(replica, None)
        for replica in there - self._tasks.keys():
            self.caches[replica] = EngineCache(self._index, replica.name)
            self._tasks[replica] = asyncio.get_running_loop().create_task(
                again(partial(self._keep, replica), f"KV events of {replica.name}")
            )

    def compare(self, replicas: Iterable[Replica]) -> None:
        """Hold the index against what the engines counted up to their last scrape."""
        for replica in replicas:
            if replica.signals is not None:
                self._index.error(replica.name).told(replica.signals.prefix_queries, replica.signals.prefix_hits)

    def placed(self, request: Request, replica: Replica) -> None:
        """A request goes to a replica."""
        cache = self.caches.get(replica)
        if cache is not None:
            cache.sent(request)

    def close(self) -> None:
        """Follow none."""
        self.follow(())
        if self._context is not None:
            self._context.destroy(linger=0)

    def figures(self, replica: Replica) -> dict[str, Any]:
        """Return what `/status` shows of one replica's cache."""
        cache, error = self.caches.get(replica), self._index.error(replica.name)
        return {
            "source": "events" if cache is not None and cache.events else "estimate",
            "predictedShare": _rounded(error.predicted),
            "engineShare": _rounded(error.counted),
            "events": cache.events if cache else 0,
            "error": self.errors.get(replica),
        }

    async def _keep(self, replica: Replica) -> None:
        """Subscribe, again after each failure."""
        wanted = self._wanted
        if self._context is None or wanted is None:
            self._failed(replica, MISSING)
            return
        while True:
            try:
                async with asyncio.TaskGroup() as ranks:
                    for port in await self._ports(replica, wanted):
                        ranks.create_task(self._listen(replica, port, wanted.topic))
            except* (zmq.ZMQError, *FAILURES) as errors:
                self._failed(replica, str(errors.exceptions[0]))
            self.caches[replica].missed()
            await asyncio.sleep(RETRY_S)

    async def _ports(self, replica: Replica, wanted: Wanted) -> list[int]:
        """Return the port of each rank: as configured, as the engine says, or the usual one. Raises one of FAILURES."""
        if wanted.port is not None:
            return [wanted.port]
        status, body = await self._client().get(replica.address, SOURCES_PATH, LIMIT_S)
        sources: Mapping[str, dict[str, Any]] = _SOURCES.decode(body) if status == 200 else {}
        ports = [str(source.get("endpoint", "")).rpartition(":")[2] for source in sources.values()]
        return [int(port) for port in ports if port.isdigit()] or [PORT]

    async def _listen(self, replica: Replica, port: int, topic: str) -> None:
        """Take one publisher's messages, in order. Where some are missing, or it began anew, say so to the cache."""
        assert self._context is not None  # noqa: S101 (asked before)
        host = f"[{replica.host}]" if ":" in replica.host else replica.host
        expected: int | None = None
        with self._context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.IPV6, 1)
            socket.connect(f"tcp://{host}:{port}")
            socket.subscribe(topic)
            while True:
                _, sequence, payload = await socket.recv_multipart()
                number, cache = int.from_bytes(sequence, "big"), self.caches[replica]
                if expected is not None and number != expected:
                    cache.told(Cleared()) if number < expected else cache.missed()  # it was started anew
                expected = number + 1
                try:
                    events = read(payload)
                except msgspec.DecodeError as error:
                    self._failed(replica, f"its events are not understood: {error}")
                    continue
                self.errors.pop(replica, None)
                for event in events:
                    cache.told(event)

    def _failed(self, replica: Replica, why: str) -> None:
        if self.errors.get(replica) != why:
            LOG.warning("KV events of %s: %s", replica.name, why)
        self.errors[replica] = why


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
