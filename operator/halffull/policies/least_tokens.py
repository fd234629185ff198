"""Policy `least-tokens`: the replica that holds the fewest tokens, waiting prompts and growing answers together."""

from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


class LeastTokens(Policy):
    """Intent: even use of memory, exactly counted. Inputs: QK, KD, prefix matches, weights. Cost: one pass over the candidates.

    Use it where answers are long and memory is what binds. Do not use it for short answers to long prompts: a token
    that waits for compute counts no more than one that rests in memory.
    """

    reads_prefixes = True

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return a candidate of least (QK + KD + own uncached prompt)/w."""
        cached, own = context.books.prefixes.matches(request), request.prompt_tokens
        costs = [
            (r.waiting_prompt_tokens + r.decode_tokens + own - cached.get(r.name, 0)) / r.weight for r in candidates
        ]
        return least(candidates, costs, context)
