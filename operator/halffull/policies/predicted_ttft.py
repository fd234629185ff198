"""Policy `predicted-ttft`: the replica where the first token is predicted to come first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from halffull.core.books import Replica, prefill_work
from halffull.core.bounds import Bounds
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request

DECODE_WORK = 0.6
"""work of one decoding sequence in one step, in prompt tokens; 0.5 on an A100, 0.9 on an H100 for 8 billion parameters"""
KV_WORK = 0.0012
"""work of reading one token of KV in one step, in prompt tokens; 0.0010 and 0.0017 likewise"""


@dataclass(frozen=True, slots=True)
class PredictedTtftParameters:
    """Parameters of policy `predicted-ttft`."""

    own_weight: Annotated[float, Bounds(ge=0, le=100)] = 6.0
    """what a second of the request's own prefill counts for beyond its wait, in seconds: it delays those that come after, so more
    favours replicas that hold more of the prompt"""


class PredictedTtft(Policy):
    """Intent: least predicted time to the first token, with regard for those that come after. Inputs: W (work, attention
    included), progress since the last first token, QK, KD, K, v, n, prefix matches. Cost: one pass over the candidates.

    Use it where prompts are long or share beginnings, or replicas differ in speed. Do not use it with several routers that
    do not share their books: the better the prediction, the more they herd.

    Predicted is the larger of two waits, plus `own_weight` times the own uncached prefill. Compute: the work queued, less
    what was done since the last first token, and the own prefill, at the learned speed (a lower one where the next first
    token is overdue), and a step of the decoding sequences. Memory: the KV tokens missing over those that the decoding
    sequences will free per second, as long as such sequences last on average. Unknown KV capacity: compute alone. Source: ours.
    """

    reads_prefixes = True

    def __init__(self, parameters: PredictedTtftParameters) -> None:
        self._own_weight = parameters.own_weight

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return the candidate of least cost, those that peers fill first after others."""
        costs = self._costs(request, candidates, context)
        return least(candidates, [cost + r.deference_s for cost, r in zip(costs, candidates, strict=True)], context)

    def cost(self, request: Request, replica: Replica, context: Context) -> float:
        """Return the predicted time to the first token and the weighted own prefill, seconds."""
        return self._costs(request, (replica,), context)[0]

    def _costs(self, request: Request, candidates: Sequence[Replica], context: Context) -> list[float]:
        """Return the cost at each; what does not depend on the replica is computed once, for large fleets."""
        books, now, prompt = context.books, context.now, request.prompt_tokens
        cached, fleet_rate, decode_left_s = books.prefixes.matches(request), books.fleet_rate, books.decode_left_s
        whole = work = prefill_work(prompt)
        whole_s = own_s = self._own_weight * whole / fleet_rate
        costs = []
        for replica in candidates:
            if cached:
                found = cached.get(replica.name, 0)
                work = prefill_work(prompt, found) if found else whole
                own_s = self._own_weight * work / fleet_rate if found else whole_s
            decode_tokens = replica.decode_tokens
            step = DECODE_WORK * replica.decoding + KV_WORK * decode_tokens
            wait = replica.prefill_s(work + step, now) if replica.prefill_work else (work + step) / replica.prefill_rate
            if (kv_tokens := replica.kv_tokens) is not None:
                missing = replica.waiting_prompt_tokens + prompt - (kv_tokens - decode_tokens)
                if missing > 0:
                    wait = max(wait, missing / max(decode_tokens, 1) * decode_left_s)
            costs.append(wait + own_s)
        return costs
