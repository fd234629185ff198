"""Policy `least-requests`: the replica with the fewest requests in flight for its weight."""

from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


class LeastRequests(Policy):
    """Intent: even counts at every moment. Inputs: n, weights. Cost: one pass over the candidates.

    Use it where prompts are alike; a long prompt counts as much as a short one. Ties are broken at random, so that
    several routers do not all pick the same replica.
    """

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return a candidate of least n/w."""
        least = min([replica.in_flight / replica.weight for replica in candidates])
        ties = [replica for replica in candidates if replica.in_flight / replica.weight == least]
        return ties[context.rng.randrange(len(ties))] if len(ties) > 1 else ties[0]
