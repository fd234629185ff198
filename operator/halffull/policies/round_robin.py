"""Policy `round-robin`: each replica in turn, in proportion to its weight."""

from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


class RoundRobin(Policy):
    """Intent: equal counts of requests over time. Inputs: weights. Cost: one pass over the candidates.

    Use it for requests of equal size; it does not see that one prompt is a hundred times longer than another.
    Each replica has a next turn in virtual time, one over its weight after its last (stride scheduling, Waldspurger
    and Weihl 1995); the earliest turn is next.
    """

    def __init__(self) -> None:
        self._turns: dict[str, float] = {}
        self._clock = 0.0

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return the candidate whose turn it is."""
        turns, clock = self._turns, self._clock
        replica = min(candidates, key=lambda candidate: (max(turns.get(candidate.name, clock), clock), candidate.name))
        self._clock = max(turns.get(replica.name, clock), clock)
        turns[replica.name] = self._clock + 1 / replica.weight
        return replica
