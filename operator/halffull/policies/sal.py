"""Policy `sal`: the replica where compute and memory let the request start first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class SalParameters:
    """Parameters of policy `sal`."""

    memory_weight: Annotated[float, Bounds(ge=0, le=10)] = 1.0
    """factor on the memory bound; 0 leaves the compute bound alone"""


class Sal(Policy):
    """Intent: least wait for the first token. Inputs: Q, QK, KD, K, v, n. Cost: one pass over the candidates.

    Use it by default. The wait is the larger of two bounds: the prompt tokens queued before the first token, own
    included, over the learned prefill speed; and the KV tokens missing over the speed at which KV was freed lately.
    Ties go to the fewest requests in flight, then to any. Unknown KV capacity: the compute bound alone.

    Source: SAL of arXiv 2410.17840 gives the idea; the formula is our reading.
    """

    def __init__(self, parameters: SalParameters) -> None:
        self._memory_weight = parameters.memory_weight

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return the candidate with the least bound on its wait, in seconds."""
        own, weight, now = request.prompt_tokens, self._memory_weight, context.now
        ties: list[Replica] = []
        least, fewest = float("inf"), 0
        for replica in candidates:
            wait = (replica.prefill_tokens + own) / replica.prefill_rate
            if replica.kv_tokens is not None:
                missing = replica.waiting_prompt_tokens + own - (replica.kv_tokens - replica.decode_tokens)
                if missing > 0:
                    wait = max(wait, weight * missing / replica.kv_free_rate(now))
            if wait < least or (wait == least and replica.in_flight < fewest):
                ties, least, fewest = [replica], wait, replica.in_flight
            elif wait == least and replica.in_flight == fewest:
                ties.append(replica)
        return ties[context.rng.randrange(len(ties))] if len(ties) > 1 else ties[0]
