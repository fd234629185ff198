"""What one engine says of its prefix cache, block by block, in terms of our own blocks. Kept by the router per replica.

An engine names its blocks by hashes of its own, over tokens that we do not see. But it says for which request it stored them,
and how they follow each other; so the block that ends where one of ours ends is known by its place in the prompt. When the
engine removes it, ours is no longer taken to be there.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from halffull.core.prefix import PrefixIndex
from halffull.core.values import Request

ASKED = 4096
"""requests per replica whose blocks may still be reported"""


class Stored(NamedTuple):
    """Blocks that follow each other in one prompt are in the cache from now on."""

    hashes: Sequence[Hashable]
    parent: Hashable
    """the block before the first; None: the prompt begins with it"""
    block_tokens: int
    request: str
    """which request they were computed for; empty: not said"""


class Removed(NamedTuple):
    """Blocks have left the cache."""

    hashes: Sequence[Hashable]


class Cleared(NamedTuple):
    """The cache is empty."""


Event = Stored | Removed | Cleared


class EngineCache:
    """The engine's blocks: where in its prompt each one ends, and which block of ours ends with it."""

    def __init__(self, index: PrefixIndex, name: str) -> None:
        """`name` is the replica's in the index."""
        self._index = index
        self._name = name
        self._places: dict[Hashable, int] = {}
        self._ours: dict[Hashable, list[Hashable]] = {}
        self._asked: OrderedDict[str, Request] = OrderedDict()
        self.unknown = 0
        """stored blocks that could not be placed: other requests', or ones that follow blocks from before our time"""
        self.events = 0

    def __len__(self) -> int:
        """Blocks that the engine is known to hold."""
        return len(self._places)

    def sent(self, request: Request) -> None:
        """A request goes to this replica: its blocks will be reported under its id."""
        if request.blocks:
            self._asked[request.id] = request
            if len(self._asked) > ASKED:
                self._asked.popitem(last=False)

    def told(self, event: Event) -> None:
        """The engine said so."""
        self.events += 1
        if isinstance(event, Stored):
            self._stored(event)
        elif isinstance(event, Removed):
            for block in event.hashes:
                self._places.pop(block, None)
                for ours in self._ours.pop(block, ()):
                    self._index.drop(self._name, ours)
        else:
            self._index.forget(self._name)
            self.missed()

    def missed(self) -> None:
        """Events were lost: what is known of single blocks may be wrong; the index stays as good as an estimate."""
        self._places.clear()
        self._ours.clear()

    def _stored(self, event: Stored) -> None:
        place = 0 if event.parent is None else self._places.get(event.parent)
        if place is None:
            self.unknown += len(event.hashes)
            return
        for block in event.hashes:
            place += 1
            self._places[block] = place
        request = self._asked.get(event.request)
        if request is None:
            self.unknown += len(event.hashes)
            return
        first = place - len(event.hashes)
        ours = first * event.block_tokens // request.block_tokens  # our blocks that end at or before the first of these
        found: dict[Hashable, list[Hashable]] = {}
        for number in range(ours, len(request.blocks)):
            end = -(-(number + 1) * request.block_tokens // event.block_tokens)
            if end > place:
                break
            if end > first:
                found.setdefault(event.hashes[end - first - 1], []).append(request.blocks[number])
                self._index.hold(self._name, request.blocks[number])
        self._ours.update(found)
