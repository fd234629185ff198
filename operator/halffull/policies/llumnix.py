"""Policy `llumnix`: the replica with the most free memory per request."""

from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


class Llumnix(Policy):
    """Intent: room to grow for every request. Inputs: K, KD, QK, n, weights. Cost: one pass over the candidates.

    Use it where long answers fill the memory; an idle replica always comes first. Do not use it where prefill is what
    binds: prompts count as memory, not as work. Unknown KV capacity: the fewest requests.

    Source: freeness of Llumnix (arXiv 2406.03243, OSDI 2024), its dispatch rule; requests are not migrated.
    """

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return a candidate of greatest freeness (K - KD - QK)/n."""
        return least(candidates, [-self._freeness(replica) for replica in candidates], context)

    def _freeness(self, replica: Replica) -> float:
        if not replica.in_flight:
            return float("inf")
        if replica.kv_tokens is None:
            return replica.weight / replica.in_flight
        free = (replica.kv_tokens - replica.decode_tokens - replica.waiting_prompt_tokens) / replica.in_flight
        return free * replica.weight if free > 0 else free / replica.weight
