"""Which replica is taken to hold which beginnings of prompts in its prefix cache. Kept by `dispatch`, read by policies.

Approximate: blocks are noted when a request is sent, so those still in prefill count (findings of the design), and leave in
LRU order when a replica's share of memory is full, or when its engine says so (`kv_events`). Hashes are the host's; no text is kept.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from types import MappingProxyType

from halffull.core.prefix_error import PrefixError
from halffull.core.values import Request

BLOCKS = 1 << 16
"""blocks remembered of a replica whose KV capacity is unknown, and the most of any"""
NOTHING: Mapping[str, int] = MappingProxyType({})


class PrefixIndex:
    """Blocks by replica, and for each block the set of its replicas as bits of an integer.

    With the bits, matching a prompt against the whole fleet costs one dictionary look-up per matched block.
    """

    def __init__(self) -> None:
        self._owners: dict[Hashable, int] = {}
        self._held: dict[str, OrderedDict[Hashable, None]] = {}
        self._bits: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._last: tuple[Request | None, Mapping[str, int]] = (None, NOTHING)
        self._errors: dict[str, PrefixError] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def matches(self, request: Request) -> Mapping[str, int]:
        """Tokens of the prompt that each replica is taken to hold; replicas that hold none are left out."""
        if not request.blocks or not self._owners:
            return NOTHING
        if self._last[0] is not request:
            self._last = (request, self._match(request))
        return self._last[1]

    def insert(self, name: str, request: Request, kv_tokens: float | None) -> None:
        """The prompt goes to the replica: note its blocks, forget those that its memory has no room for."""
        self.error(name).sent(request.prompt_tokens, self.matches(request).get(name, 0))
        if not request.blocks:
            return
        held = self._held.get(name)
        if held is None:
            held = self._held[name] = OrderedDict()
            bit = next(bit for bit in range(len(self._names) + 1) if bit not in self._names)
            self._bits[name], self._names[bit] = 1 << bit, name
        bit, owners = self._bits[name], self._owners
        for block in reversed(request.blocks):  # the end of a prompt is worth less than its beginning: it leaves first
            if block in held:
                held.move_to_end(block)
            else:
                held[block] = None
                owners[block] = owners.get(block, 0) | bit
        room = BLOCKS if kv_tokens is None else min(BLOCKS, int(kv_tokens / request.block_tokens))
        while len(held) > room:
            self._disown(held.popitem(last=False)[0], bit)
        self._last = (None, NOTHING)

    def error(self, name: str) -> PrefixError:
        """Return how far this index is from what the replica's engine counts."""
        found = self._errors.get(name)
        if found is None:
            found = self._errors[name] = PrefixError()
        return found

    def hold(self, name: str, block: Hashable) -> None:
        """The replica's engine says that it has this block."""
        held = self._held.get(name)
        if held is not None and block not in held:
            held[block] = None
            self._owners[block] = self._owners.get(block, 0) | self._bits[name]
            self._last = (None, NOTHING)

    def drop(self, name: str, block: Hashable) -> None:
        """The replica's engine says that it has this block no longer."""
        held = self._held.get(name)
        if held is not None and block in held:
            del held[block]
            self._disown(block, self._bits[name])
            self._last = (None, NOTHING)

    def forget(self, name: str) -> None:
        """The replica is gone, or its cache is empty."""
        self._errors.pop(name, None)
        held = self._held.pop(name, None)
        if held is None:
            return
        bit = self._bits.pop(name)
        del self._names[bit.bit_length() - 1]
        for block in held:
            self._disown(block, bit)
        self._last = (None, NOTHING)

    def _disown(self, block: Hashable, bit: int) -> None:
        left = self._owners[block] & ~bit
        if left:
            self._owners[block] = left
        else:
            del self._owners[block]

    def _match(self, request: Request) -> dict[str, int]:
        found: dict[str, int] = {}
        longest = request.prompt_tokens - 1  # an engine computes at least one token, to sample from
        holders, depth = -1, 0
        for block in request.blocks:
            still = holders & self._owners.get(block, 0)
            if depth:
                self._note(found, holders & ~still, min(depth * request.block_tokens, longest))
            holders = still
            if not holders:
                return found
            depth += 1
        self._note(found, holders, min(depth * request.block_tokens, longest))
        return found

    def _note(self, found: dict[str, int], bits: int, tokens: int) -> None:
        while bits and tokens > 0:
            bit = bits & -bits
            bits ^= bit
            found[self._names[bit.bit_length() - 1]] = tokens
