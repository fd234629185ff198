"""Policy `least-kv`: the replica that uses the least of its KV cache, by its own word."""

from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


class LeastKv(Policy):
    """Intent: even use of memory, as routers do that know nothing but metrics. Inputs: KV use from signals; where there is
    none or it is stale, (KD + QK)/K from the books, else n. Cost: one pass over the candidates.

    Use it to compare with, or where memory alone binds and signals are very young. Do not use it otherwise: between two
    scrapes every request goes to the same replica.
    """

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return a candidate of least KV use."""
        return least(candidates, [self._use(replica, context) for replica in candidates], context)

    def _use(self, replica: Replica, context: Context) -> float:
        signals = context.signals(replica)
        if signals is not None and signals.kv_usage is not None:
            return signals.kv_usage
        if replica.kv_tokens:
            return (replica.decode_tokens + replica.waiting_prompt_tokens) / replica.kv_tokens
        return float(replica.in_flight)
