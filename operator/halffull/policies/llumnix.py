"""Policy `llumnix`: the replica with the most free memory per request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class LlumnixParameters:
    """Parameters of policy `llumnix`."""

    max_moves: Annotated[int, Bounds(ge=0, le=3)] = 3
    """times that a request which waits in an engine may be moved to a replica that would start it earlier; 0: never"""


class Llumnix(Policy):
    """Intent: room to grow for every request. Inputs: K, KD, QK, n, weights. Cost: one pass over the candidates.

    Use it where long answers fill the memory; an idle replica always comes first. Do not use it where prefill is what
    binds: prompts count as memory, not as work. Unknown KV capacity: the fewest requests.

    Source: freeness of Llumnix (arXiv 2406.03243, OSDI 2024), its dispatch rule, and rescheduling of what waits; requests that
    run are not migrated.
    """

    def __init__(self, parameters: LlumnixParameters) -> None:
        self.max_moves = parameters.max_moves

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
