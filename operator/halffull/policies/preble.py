"""Policy `preble`: exploit a long cached prefix, else explore the replica with the least recent work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Annotated

from halffull.core.books import Replica, prefill_work
from halffull.core.bounds import Bounds
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class PrebleParameters:
    """Parameters of policy `preble`."""

    match: Annotated[float, Bounds(ge=0, le=1)] = 0.5
    """part of the prompt that must be cached for the prefix to decide"""
    window_seconds: Annotated[float, Bounds(gt=0, le=3600)] = 30.0
    """how long work that was routed counts as recent"""
    hot: Annotated[float, Bounds(ge=1, le=1000)] = 2.0
    """recent work over that of the coldest replica from which a match is not followed"""


class Preble(Policy):
    """Intent: hits in prefix caches where they save more than half, load elsewhere. Inputs: prefix matches, routed work, K,
    KD, QK, v. Cost: one pass over the candidates.

    Use it where prompts are either mostly shared or not at all. Do not use it where prompts differ in length by orders of
    magnitude: recent work says little of what waits now.

    Work is prefill seconds routed within the window, plus what the request adds, plus the cached tokens that it would push
    out of a full memory times the rate of hits. A newcomer starts with what it holds. Source: E2 of Preble
    (arXiv 2407.00023) as we read its code; the output's share of work, unknown before it is there, counts as tokens held.
    """

    reads_prefixes = True

    def __init__(self, parameters: PrebleParameters) -> None:
        self._parameters = parameters
        self._work: dict[str, tuple[float, float]] = {}
        self._hits = 0.0
        self._asked = 1.0

    def added(self, replica: Replica) -> None:
        """Start with the work that waits there."""
        self._work.setdefault(replica.name, (replica.prefill_work / replica.prefill_rate, replica.sent_at))

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return the best match if it is long and its replica not hot, else the least work."""
        cached = context.books.prefixes.matches(request)
        recent = self._recent(candidates, context.now)
        chosen = None
        if cached:
            matches = [-float(cached.get(replica.name, 0)) for replica in candidates]
            if -min(matches) > self._parameters.match * request.prompt_tokens:
                best = least(candidates, matches, context)
                if recent[candidates.index(best)] <= self._parameters.hot * min(recent) + 1.0:
                    chosen = best
        if chosen is None:
            own = self._own(request, candidates, cached)
            chosen = least(candidates, [work + more for work, more in zip(recent, own, strict=True)], context)
        found = cached.get(chosen.name, 0)
        self._hits = 0.999 * self._hits + found
        self._asked = 0.999 * self._asked + request.prompt_tokens
        work = (
            self._recent((chosen,), context.now)[0] + prefill_work(request.prompt_tokens, found) / chosen.prefill_rate
        )
        self._work[chosen.name] = (work, context.now)
        return chosen

    def _recent(self, replicas: Sequence[Replica], now: float) -> list[float]:
        """Prefill seconds routed to each lately, fading over the window."""
        routed, window_s = self._work, self._parameters.window_seconds
        pages = [routed.get(replica.name, (0.0, now)) for replica in replicas]
        return [work * exp((at - now) / window_s) for work, at in pages]

    def _own(self, request: Request, replicas: Sequence[Replica], cached: Mapping[str, int]) -> list[float]:
        """Prefill seconds that the request adds to each, and those that others lose with the cache that it pushes out."""
        prompt, whole = request.prompt_tokens, prefill_work(request.prompt_tokens)
        added = []
        for replica in replicas:
            found = cached.get(replica.name, 0) if cached else 0
            seconds = (prefill_work(prompt, found) if found else whole) / replica.prefill_rate
            if (kv_tokens := replica.kv_tokens) is not None:
                tokens = prompt - found
                over = replica.decode_tokens + replica.waiting_prompt_tokens + tokens - kv_tokens / 2
                if over > 0:
                    seconds += min(over, tokens) * self._hits / self._asked / replica.prefill_rate
            added.append(seconds)
        return added
