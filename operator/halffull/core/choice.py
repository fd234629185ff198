"""How a policy takes the best of many: ties go to any of them, so that several routers do not all pick the same. Used by policies."""

from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.core.contracts import Context


def least(candidates: Sequence[Replica], costs: Sequence[float], context: Context) -> Replica:
    """Return a candidate of least cost; `costs` are in the order of `candidates`."""
    cost = min(costs)
    first = costs.index(cost)
    if costs.count(cost) == 1:
        return candidates[first]
    ties = [replica for replica, other in zip(candidates, costs, strict=True) if other == cost]
    return ties[context.rng.randrange(len(ties))]
