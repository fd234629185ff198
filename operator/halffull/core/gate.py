"""Gates: whether a request may be sent to a replica now, or waits in the router. `dispatch` asks, the catalog names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.contracts import Gate
from halffull.core.entry import Entry
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class LimitParameters:
    """Parameters of gate `limit`."""

    max_in_flight: Annotated[int, Bounds(ge=1)] | None = None
    """requests in flight per replica; absent: twice the sequences that its engine runs at once"""


class NoGate(Gate):
    """Gate `none`: every request is sent at once; the engines' queues hold what waits."""

    def open(self, replica: Replica) -> bool:
        """Return True."""
        return True

    def limit(self, replica: Replica) -> int | None:
        """Return None."""
        return None


class LimitGate(Gate):
    """Gate `limit`: at most `max_in_flight` requests per replica; the router's queue holds the rest."""

    def __init__(self, parameters: LimitParameters) -> None:
        self._limit = parameters.max_in_flight

    def open(self, replica: Replica) -> bool:
        """Whether the replica has fewer requests in flight than its limit."""
        return replica.in_flight < (self._limit or 2 * replica.max_sequences)

    def limit(self, replica: Replica) -> int | None:
        """Return the limit that holds for this replica."""
        return self._limit or 2 * replica.max_sequences


@dataclass(frozen=True, slots=True)
class KvParameters:
    """Parameters of gate `kv`."""

    memory: Annotated[float, Bounds(gt=0, le=1)] = 0.94
    """part of the KV cache that prompts and answers may fill, as the books count them; the rest is for answers to grow: with
    0.97 the simulated engine pre-empts 2 to 3 of 1000 requests beyond saturation, with 0.94 less than one"""
    steps: Annotated[float, Bounds(ge=0.1, le=100)] = 2.0
    """prefill work that may wait at a replica, in full steps of its engine; less delays the engine's next step"""


class KvGate(Gate):
    """Gate `kv`: a replica takes a request when it can begin with it soon and keep it in memory to its end.

    Its queued prefill work must be below `steps` steps, its requests below the engine's sequence limit, and its decoding
    and waiting tokens with the prompt within `memory` of the KV cache. Unknown capacity: the first two alone. What no
    replica can take waits in the router, from where it can still go to whichever is free first.

    A valve keeps wrong estimates from closing a replica for good: it opens for one request where the engine, asked after
    the last one was sent, reports nothing waiting and memory to spare. An empty replica takes any request.
    """

    late = True

    def __init__(self, parameters: KvParameters) -> None:
        self._memory = parameters.memory
        self._steps = parameters.steps

    def open(self, replica: Replica) -> bool:
        """Return True: whether it is ready depends on the request."""
        return True

    def admits(self, replica: Replica, request: Request, now: float) -> bool:
        """Whether work, sequences and memory let the request in now."""
        if not replica.in_flight:
            return True
        if self.soon(replica, request) and replica.work_left(now) < self._steps * replica.max_batched_tokens:
            return True
        return self._valve(replica, request)

    def soon(self, replica: Replica, request: Request) -> bool:
        """Whether sequences and memory let the request in."""
        if replica.in_flight >= replica.max_sequences:
            return False
        if replica.kv_tokens is None:
            return True
        held = replica.decode_tokens + replica.waiting_prompt_tokens
        return held + request.prompt_tokens <= self._memory * replica.kv_tokens

    def limit(self, replica: Replica) -> int | None:
        """Return the engine's sequence limit."""
        return replica.max_sequences

    def _valve(self, replica: Replica, request: Request) -> bool:
        signals = replica.signals
        if signals is None or replica.distrusted or signals.waiting != 0 or replica.signals_at <= replica.sent_at:
            return False
        if replica.kv_tokens is None or signals.kv_usage is None:
            return signals.running is not None and signals.running < replica.max_sequences
        return signals.kv_usage * replica.kv_tokens + request.prompt_tokens <= self._memory * replica.kv_tokens


_ENTRIES = (
    Entry[Gate]("none", "every request is sent at once", NoGate),
    Entry[Gate]("limit", "a limit on requests in flight per replica", LimitGate, LimitParameters),
    Entry[Gate]("kv", "late binding: until a replica can begin soon and has the memory", KvGate, KvParameters),
)

GATES: Mapping[str, Entry[Gate]] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
