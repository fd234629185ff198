"""Policy `prefix-affinity`: the replica with the longest cached prefix, unless the fleet is out of balance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class PrefixAffinityParameters:
    """Parameters of policy `prefix-affinity`."""

    match: Annotated[float, Bounds(ge=0, le=1)] = 0.5
    """part of the prompt that must be cached for the prefix to decide"""
    imbalance: Annotated[int, Bounds(ge=0, le=100_000)] = 32
    """requests in flight between the most and the least loaded replica from which load decides"""
    imbalance_ratio: Annotated[float, Bounds(ge=1, le=1000)] = 1.0001
    """the same as a quotient; both must be exceeded"""


class PrefixAffinity(Policy):
    """Intent: the most hits in prefix caches, with a brake. Inputs: prefix matches, n, weights, tokens routed so far.
    Cost: one pass over the candidates.

    Use it where prompts share long beginnings of many kinds. Do not use it where all share one system prompt: the brake
    alone then balances the load, in requests, not in work.

    A prompt without a long match goes to the replica that was routed the fewest tokens, so that the caches fill evenly; a
    newcomer starts at the fewest of all. Source: SGLang's cache-aware router; smallest tree read as fewest routed tokens.
    """

    reads_prefixes = True

    def __init__(self, parameters: PrefixAffinityParameters) -> None:
        self._parameters = parameters
        self._routed: dict[str, float] = {}

    def added(self, replica: Replica) -> None:
        """Start where the least loaded one is, and not below what it holds now."""
        if replica.name not in self._routed:
            held = float(replica.decode_tokens + replica.waiting_prompt_tokens)
            self._routed[replica.name] = max(min(self._routed.values(), default=0.0), held)

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return the least loaded, the best match, or the one with most room in its cache."""
        cached, parameters = context.books.prefixes.matches(request), self._parameters
        loads = [replica.in_flight / replica.weight for replica in candidates]
        low, high = min(loads), max(loads)
        if high - low > parameters.imbalance and high > parameters.imbalance_ratio * low:
            chosen = least(candidates, loads, context)
        else:
            matches = [-float(cached.get(replica.name, 0)) for replica in candidates]
            if -min(matches) <= parameters.match * request.prompt_tokens:
                matches = [self._routed.get(replica.name, 0.0) / replica.weight for replica in candidates]
            chosen = least(candidates, matches, context)
        tokens = request.prompt_tokens - cached.get(chosen.name, 0)
        self._routed[chosen.name] = self._routed.get(chosen.name, 0.0) + tokens
        return chosen
