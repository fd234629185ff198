"""What a simulated engine publishes of its prefix cache: vLLM's KV events over ZeroMQ. Called by `pace` after each step.

pyzmq is an extra (`kv-events`); an engine that is told to publish does not start without it.
"""

import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from halffull.sim.engine_model import Outcome
from halffull.sim.kv_cache import KvCache

try:
    import zmq
except ImportError:  # the extra is not installed
    zmq = None  # type: ignore[assignment]

ENCODE = msgspec.msgpack.Encoder().encode


class Publisher:
    """Sends one message per step in which the cache changed, numbered from 0."""

    def __init__(self, endpoint: str, topic: str) -> None:
        """Bind `endpoint`; port 0: any free one. Raises ValueError where pyzmq is missing, or OSError."""
        if zmq is None:
            raise ValueError("--kv-events-config needs pyzmq: pip install 'halffull[kv-events]'")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(f"{endpoint}: {error}") from error
        self._topic = topic.encode()
        self._number = 0

    @property
    def sources(self) -> dict[str, dict[str, str]]:
        """Where it publishes, as vLLM says it at /kv_event_sources."""
        bound = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        return {"0": {"endpoint": f"tcp://*:{urlsplit(bound).port}", "topic": self._topic.decode()}}

    def watch(self, cache: KvCache) -> None:
        """Have the cache tell what it evicts."""
        cache.left = []

    def publish(self, outcome: Outcome, cache: KvCache) -> None:
        """Send what a step changed."""
        events = [_removed(cache.left)] if cache.left else []
        events += [_stored(sequence.block_hashes, sequence.session, first, end, cache.block_size)
                   for sequence, first, end in outcome.published]  # fmt: skip
        if not events:
            return
        if cache.left:
            cache.left.clear()
        self._socket.send_multipart([self._topic, self._number.to_bytes(8, "big"), ENCODE([time.time(), events, 0])])
        self._number += 1

    def close(self) -> None:
        """Stop publishing."""
        self._socket.close(linger=0)
        self._context.term()


def publisher(config: str | None) -> Publisher | None:
    """Return what the JSON of `--kv-events-config` asks for; None: nothing. Raises ValueError, or OSError."""
    if config is None:
        return None
    try:
        document = json.loads(config)
    except ValueError as error:
        raise ValueError(f"--kv-events-config is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("--kv-events-config is not a JSON object")  # noqa: TRY004 (a wrong option, like any other)
    if not document.get("enable_kv_cache_events"):
        return None
    return Publisher(document.get("endpoint", "tcp://*:5557"), document.get("topic", ""))


def _stored(hashes: Sequence[Any], session: str, first: int, end: int, block_size: int) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": list(hashes[first:end]),
        "parent_block_hash": hashes[first - 1] if first else None,
        "token_ids": [0] * (block_size * (end - first)),
        "block_size": block_size,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "session_id": session or None,
    }


def _removed(hashes: Sequence[Any]) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": "GPU"}
