"""Policy `least-requests`: the replica with the fewest requests in flight for its weight."""

from bisect import bisect_left
from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.core.contracts import Context
from halffull.core.values import Request
from halffull.policies.ranking import END, Key, Ranked


class LeastRequests(Ranked):
    """Intent: even counts at every moment. Inputs: n, weights. Cost: logarithmic in the fleet's size.

    Use it where prompts are alike; a long prompt counts as much as a short one. Ties are broken at random, so that
    several routers do not all pick the same replica.
    """

    def key(self, replica: Replica) -> Key:
        """Return n/w."""
        return (replica.in_flight / replica.weight,)

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return a candidate of least n/w."""
        ranking = self.ranking(candidates)
        if ranking is not None:
            ties = bisect_left(ranking, (ranking[0][0], END))
            return ranking[context.rng.randrange(ties)][2]
        least = min([replica.in_flight / replica.weight for replica in candidates])
        tied = [replica for replica in candidates if replica.in_flight / replica.weight == least]
        return tied[context.rng.randrange(len(tied))] if len(tied) > 1 else tied[0]
