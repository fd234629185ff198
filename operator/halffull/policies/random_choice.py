"""Policy `random`: any replica, in proportion to its weight."""

from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


class Random(Policy):
    """Intent: a baseline that needs no knowledge. Inputs: weights. Cost: one pass over the candidates.

    Use it to compare with; it lets queues form by chance even at low load.
    """

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return a candidate drawn in proportion to weight."""
        left = context.rng.random() * sum(replica.weight for replica in candidates)
        for replica in candidates:
            left -= replica.weight
            if left < 0:
                return replica
        return candidates[-1]
