"""Policy `least-prefill`: the replica with the fewest prompt tokens that wait for their first token."""

from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


class LeastPrefill(Policy):
    """Intent: least compute ahead of the request. Inputs: Q, prefix matches, weights. Cost: one pass over the candidates.

    Use it where memory never binds and replicas are alike; it is `sal` without memory and learned speed. Do not use it
    where KV memory is tight: it sends to a replica that has no room for the request.
    """

    reads_prefixes = True

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return a candidate of least (Q + own uncached prompt)/w."""
        cached, own = context.books.prefixes.matches(request), request.prompt_tokens
        costs = [(r.prefill_tokens + own - cached.get(r.name, 0)) / r.weight for r in candidates]
        return least(candidates, costs, context)
