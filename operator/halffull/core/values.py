"""Values that policies, gates and orderings read. Who fills them: the router (live) and the simulator (virtual time).

Absent knowledge is None, never 0. Times are seconds of the host's monotonic clock; tokens are counts.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """What a router thinks of a replica."""

    READY = "Ready"
    DRAINING = "Draining"
    SUSPECT = "Suspect"
    DOWN = "Down"


@dataclass(frozen=True, slots=True)
class Signals:
    """What an engine says of itself in one scrape; None where it does not say it."""

    running: float | None = None
    """requests in the running batch"""
    waiting: float | None = None
    """requests in the engine's queue"""
    kv_usage: float | None = None
    """fraction of KV cache blocks in use, 0 to 1, evictable prefix blocks not counted"""
    kv_tokens: float | None = None
    """capacity of the KV cache in tokens"""
    prompt_tokens: float | None = None
    """prompt tokens processed since the engine's start"""
    generation_tokens: float | None = None
    """tokens generated since the engine's start"""
    preemptions: float | None = None
    """pre-emptions since the engine's start"""
    prefix_queries: float | None = None
    """prompt tokens looked up in the prefix cache since the engine's start"""
    prefix_hits: float | None = None
    """prompt tokens found in the prefix cache since the engine's start"""
    token_seconds: float | None = None
    """seconds between successive tokens, summed over all requests since the engine's start"""
    adapters: tuple[str, ...] = ()
    """LoRA adapters of the requests that run or wait"""
    adapter_slots: int | None = None
    """LoRA adapters that its GPU holds at once"""


@dataclass(slots=True)
class Request:
    """One request as scheduling sees it; made once by its host, then only read."""

    id: str
    arrived: float
    """when its last byte was read, seconds"""
    prompt_tokens: int
    """estimated or exact length of the prompt"""
    stream: bool = True
    """whether the first token can be seen (server-sent events)"""
    max_tokens: int | None = None
    """limit on generated tokens that the request sets"""
    body_bytes: int = 0
    """memory that its body holds while it waits"""
    resendable: bool = True
    """whether it may be sent again where no answer has started"""
    priority: int = 0
    """class, lower first"""
    caller: str = ""
    """who asks: a hash of the API key or the `user` field; never logged"""
    pinned: str | None = None
    """name of the replica that holds what the request needs; another is taken where that one is no candidate"""
    adapter: str = ""
    """LoRA adapter that it asks for; empty: the model itself"""
    session: str = ""
    """what it belongs with: a hash of the session header, else of the `user` field; empty: nothing"""
    blocks: Sequence[Hashable] = ()
    """hashes of the prompt's full blocks, each chained with those before; only where the policy reads them"""
    block_tokens: int = 0
    """length of one block"""
    features: Sequence[Hashable] = ()
    """hashes of what its text looks like, for orderings that learn; never the text"""
