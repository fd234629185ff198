"""KV memory of one modelled replica: counted in tokens, with an optional prefix cache of prompt blocks.

Called by the engine model when it admits, extends and frees sequences. Without a prefix cache it is two integers. With
one, full blocks of prompts are shared by reference count; blocks that nobody refers to stay until the memory is needed
and leave in LRU order. Only prompt blocks are cached, never generated ones.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class KvCache:
    """Tokens held by running sequences (`used`) and by evictable cached blocks, together never more than `capacity`."""

    def __init__(self, capacity: int, block_size: int, *, prefix_cache: bool) -> None:
        self.capacity = capacity
        self.block_size = block_size
        self.used = 0
        """tokens that running sequences hold; a shared block counts once"""
        self.queries = 0
        """prompt tokens looked up in the prefix cache"""
        self.hits = 0
        """prompt tokens found in it"""
        self.left: list[Hashable] | None = None
        """blocks that were evicted, for a host that wants to know: it gives the list and empties it"""
        self._prefix_cache = prefix_cache
        self._references: dict[Hashable, int] = {}
        self._evictable: OrderedDict[Hashable, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Tokens that can be allocated, after evicting cached blocks that nobody refers to."""
        return self.capacity - self.used

    @property
    def cached(self) -> int:
        """Tokens in evictable blocks."""
        return len(self._evictable) * self.block_size

    def reserve(self, tokens: int, hashes: Sequence[Hashable]) -> tuple[int, int] | None:
        """Take room for a whole sequence of `tokens` whose full prompt blocks have `hashes`; None if it does not fit.

        Returns how many of its tokens are already computed (at least one never is, so that there is something to
        sample from), and how many it must hold by itself because their blocks are not shared yet.
        """
        if not self._prefix_cache:
            if tokens > self.capacity - self.used:
                return None
            self.used += tokens
            return 0, tokens
        matched = self._match(hashes, tokens)
        revived = [block for block in hashes[:matched] if block in self._evictable]
        own = tokens - matched * self.block_size
        taken = own + len(revived) * self.block_size
        if taken > self.capacity - self.used:
            return None
        for block in revived:
            del self._evictable[block]
        for block in hashes[:matched]:
            self._references[block] = self._references.get(block, 0) + 1
        self.queries += tokens
        self.hits += matched * self.block_size
        self.used += taken
        self._evict()
        return matched * self.block_size, own

    def publish(self, hashes: Sequence[Hashable], shared: int) -> int:
        """Make a sequence's computed prompt blocks from index `shared` on findable; return how many are now shared.

        Stops at the first block that another sequence has published meanwhile: that copy stays the sequence's own.
        """
        if not self._prefix_cache:
            return shared
        for position in range(shared, len(hashes)):
            block = hashes[position]
            if block in self._references or block in self._evictable:
                return position
            self._references[block] = 1
        return len(hashes)

    def grow(self, tokens: int) -> None:
        """Take `tokens` more for decodes; the caller has checked `free`."""
        self.used += tokens
        if self._evictable:
            self._evict()

    def release(self, own: int, shared: Sequence[Hashable]) -> None:
        """Give back a sequence's own tokens and its references to shared blocks."""
        self.used -= own
        for block in reversed(shared):  # the end of a prompt is worth less than its beginning: it is evicted first
            count = self._references[block] - 1
            if count:
                self._references[block] = count
            else:
                del self._references[block]
                self._evictable[block] = None
                self.used -= self.block_size

    def _match(self, hashes: Sequence[Hashable], tokens: int) -> int:
        matched = 0
        for block in hashes[: (tokens - 1) // self.block_size]:
            if block not in self._references and block not in self._evictable:
                break
            matched += 1
        return matched

    def _evict(self) -> None:
        while self.used + self.cached > self.capacity:
            block, _ = self._evictable.popitem(last=False)
            if self.left is not None:
                self.left.append(block)
