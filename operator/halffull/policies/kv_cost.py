"""Policy `kv-cost`: the least prefill to be done and memory in use together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class KvCostParameters:
    """Parameters of policy `kv-cost`."""

    prefill_weight: Annotated[float, Bounds(ge=0, le=100)] = 1.0
    """what a token to be prefilled counts for, in tokens held; higher values favour cached prefixes"""


class KvCost(Policy):
    """Intent: reuse of cached prefixes with a load term in the same unit. Inputs: Q, QK, KD, prefix matches, weights.
    Cost: one pass over the candidates.

    Use it where prompts share long beginnings and memory is ample. Do not use it on short, unrelated prompts: memory
    in use outweighs the prefill that makes requests wait.

    Source: cost of the KV router of NVIDIA Dynamo (overlap weight 1, temperature 0), counted in tokens, not blocks.
    """

    reads_prefixes = True

    def __init__(self, parameters: KvCostParameters) -> None:
        self._prefill_weight = parameters.prefill_weight

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return a candidate of least (prefill weight x (Q + own uncached) + KD + QK + own)/w."""
        cached, own, weight = context.books.prefixes.matches(request), request.prompt_tokens, self._prefill_weight
        found = [cached.get(replica.name, 0) for replica in candidates] if cached else repeat(0)
        costs = [
            (weight * (r.prefill_tokens + own - hit) + (r.decode_tokens + r.waiting_prompt_tokens + own)) / r.weight
            for r, hit in zip(candidates, found, strict=False)
        ]
        return least(candidates, costs, context)
