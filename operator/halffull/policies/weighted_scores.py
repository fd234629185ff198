"""Policy `weighted-scores`: the highest sum of scores for a short queue, free memory and a cached prefix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class WeightedScoresParameters:
    """Parameters of policy `weighted-scores`; the defaults are those of the Gateway API Inference Extension."""

    queue: Annotated[float, Bounds(ge=0, le=100)] = 2.0
    """weight of a short engine queue, 1 for the shortest, 0 for the longest"""
    kv: Annotated[float, Bounds(ge=0, le=100)] = 2.0
    """weight of the free part of the KV cache"""
    prefix: Annotated[float, Bounds(ge=0, le=100)] = 3.0
    """weight of the part of the prompt that the replica is taken to hold already"""


class WeightedScores(Policy):
    """Intent: what users of the Gateway API Inference Extension have, for comparison and for moving over without surprise.
    Inputs: waiting requests and KV use from signals (where none or stale: from the books), prefix matches.
    Cost: two passes over the candidates.

    Use it where you tuned these weights elsewhere. Do not use it with signals older than 50 ms: between two scrapes all
    requests go the same way. Queues of equal length all score 1.

    Source: default scorers and weights of the extension's endpoint picker (queue 2, KV cache 2, prefix 3).
    """

    reads_prefixes = True

    def __init__(self, parameters: WeightedScoresParameters) -> None:
        self._parameters = parameters

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return a candidate of highest score."""
        parameters, cached = self._parameters, context.books.prefixes.matches(request)
        queues = [self._waiting(replica, context) for replica in candidates]
        longest, spread = max(queues), (max(queues) - min(queues)) or 1.0
        costs = []
        for replica, waiting in zip(candidates, queues, strict=True):
            score = parameters.queue * (longest - waiting) / spread
            score += parameters.kv * (1 - self._use(replica, context))
            score += parameters.prefix * cached.get(replica.name, 0) / max(request.prompt_tokens, 1)
            costs.append(-score)
        return least(candidates, costs, context)

    def _waiting(self, replica: Replica, context: Context) -> float:
        signals = context.signals(replica)
        if signals is not None and signals.waiting is not None:
            return signals.waiting
        return float(replica.in_flight - replica.decoding)

    def _use(self, replica: Replica, context: Context) -> float:
        signals = context.signals(replica)
        if signals is not None and signals.kv_usage is not None:
            return signals.kv_usage
        if replica.kv_tokens is None:
            return 0.0
        return min((replica.decode_tokens + replica.waiting_prompt_tokens) / replica.kv_tokens, 1.0)
