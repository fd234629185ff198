"""Candidates kept in the order of a key that their books give, so that a policy need not look at all of them.

Policies that want it derive from `Ranked`. A changed candidate is only noted, and put in its new place at the next decision: a
replica that changes four times per request is moved once. On small fleets one pass over all candidates is cheaper.
"""

from abc import abstractmethod
from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import count

from halffull.core.books import Replica
from halffull.core.contracts import Policy

FEW = 64
"""candidates up to which a pass over all of them is cheaper than keeping them in order"""
END = float("inf")
"""in place of a number: after all with the same key"""

Key = tuple[float, ...]
Place = tuple[Key, int, Replica]
"""key, a number of its own so that replicas are never compared, and the replica"""


class Ranked(Policy):
    """A policy that knows its candidates in the order of their keys, lowest first."""

    def __init__(self) -> None:
        self._places: dict[Replica, Place] = {}
        self._order: list[Place] = []
        self._changed: dict[Replica, None] = {}
        self._numbers = count()

    @abstractmethod
    def key(self, replica: Replica) -> Key:
        """Return what orders the candidates."""

    def ranking(self, candidates: Sequence[Replica]) -> list[Place] | None:
        """Return all candidates in order as of now; None where these are few, or not those that `added` told of.

        The list is to be read before anything changes.
        """
        if len(candidates) <= FEW or len(candidates) != len(self._places):
            return None
        for replica in self._changed:
            self._move(replica)
        self._changed.clear()
        return self._order

    def added(self, replica: Replica) -> None:
        """A replica became a candidate."""
        place = self._places[replica] = (self.key(replica), next(self._numbers), replica)
        insort(self._order, place)

    def changed(self, replica: Replica) -> None:
        """The books of a candidate changed, and so its key perhaps."""
        self._changed[replica] = None

    def removed(self, replica: Replica) -> None:
        """A replica is no longer a candidate."""
        place = self._places.pop(replica)
        del self._order[bisect_left(self._order, place)]
        self._changed.pop(replica, None)

    def _move(self, replica: Replica) -> None:
        key, place = self.key(replica), self._places[replica]
        if place[0] != key:
            del self._order[bisect_left(self._order, place)]
            place = self._places[replica] = (key, place[1], replica)
            insort(self._order, place)
