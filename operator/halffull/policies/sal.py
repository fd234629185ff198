"""Policy `sal`: the replica where compute and memory let the request start first."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log2
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.contracts import Context
from halffull.core.values import Request
from halffull.policies.ranking import END, Key, Place, Ranked

SPEEDS_PER_OCTAVE = 8
"""classes of prefill speed that are searched one by one; members of one differ by up to 9 %"""


@dataclass(frozen=True, slots=True)
class SalParameters:
    """Parameters of policy `sal`."""

    memory_weight: Annotated[float, Bounds(ge=0, le=10)] = 1.0
    """factor on the memory bound; 0 leaves the compute bound alone"""
    prefixes: bool = False
    """whether what a replica is taken to hold of a prompt in its prefix cache costs no compute; every prompt is then hashed"""


class Sal(Ranked):
    """Intent: least wait for the first token. Inputs: Q, QK, KD, K, v, n. Cost: see `_search`; one pass on small fleets.

    Use it by default; where prompts share beginnings, with parameter `prefixes`. The wait is the larger of two bounds: the
    prompt tokens queued before the first token, own included, over the learned prefill speed; and the KV tokens missing over
    the speed at which KV was freed lately. Ties go to the fewest requests in flight, then to any. Unknown KV capacity: the
    compute bound alone.

    Source: SAL of arXiv 2410.17840 gives the idea; the formula is our reading.
    """

    def __init__(self, parameters: SalParameters) -> None:
        super().__init__()
        self._memory_weight = parameters.memory_weight
        self.reads_prefixes = parameters.prefixes

    def key(self, replica: Replica) -> Key:
        """Return class of speed, queued tokens, slowness within the class, requests in flight."""
        speed = floor(log2(replica.prefill_rate) * SPEEDS_PER_OCTAVE)
        return speed, replica.prefill_tokens, -replica.prefill_rate, replica.in_flight

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return the candidate with the least bound on its wait, in seconds."""
        cached = context.books.prefixes.matches(request)
        ranking = self.ranking(candidates)
        if ranking is not None:
            best = self._search(ranking, request.prompt_tokens, context)
            if not cached:
                return best
            candidates = [best, *(replica for replica in candidates if replica.name in cached)]
        own, weight, now = request.prompt_tokens, self._memory_weight, context.now
        ties: list[Replica] = []
        least, fewest = END, 0
        for replica in candidates:
            uncached = own - cached.get(replica.name, 0) if cached else own
            wait = (replica.prefill_tokens + uncached) / replica.prefill_rate
            if replica.kv_tokens is not None:
                missing = replica.waiting_prompt_tokens + own - (replica.kv_tokens - replica.decode_tokens)
                if missing > 0:
                    wait = max(wait, weight * missing / replica.kv_free_rate(now))
            wait += replica.deference_s
            if wait > least:
                continue
            in_flight = replica.in_flight
            if wait < least or in_flight < fewest:
                ties, least, fewest = [replica], wait, in_flight
            elif in_flight == fewest:
                ties.append(replica)
        return ties[context.rng.randrange(len(ties))] if len(ties) > 1 else ties[0]

    def _search(self, order: list[Place], own: int, context: Context) -> Replica:
        """Return such a candidate from the ranking: class by class of speed, from the least queued tokens on.

        A class is left as soon as no further member can win by compute: where memory is no bound, after its first. Where
        memory makes all wait, all are looked at.
        """
        now = context.now
        best, least, fewest = order[0][2], END, END
        at, size = 0, len(order)
        while at < size:
            key, _, replica = order[at]
            speed, queued, _, in_flight = key
            if (queued + own) / 2 ** ((speed + 1) / SPEEDS_PER_OCTAVE) > least:
                at = bisect_left(order, ((speed + 1,),), at)
                continue
            wait = self._wait(replica, own, now)
            better = wait < least or (wait == least and in_flight < fewest)
            if better:
                best, least, fewest = replica, wait, in_flight
            if wait > (queued + own) / replica.prefill_rate:
                at += 1
                continue
            # Neither memory nor a peer speaks against it: it beats all with equal queues, save those with an equal key.
            after = bisect_left(order, (key, END), at)
            if better and after > at + 1:
                drawn = order[at + context.rng.randrange(after - at)][2]
                best = drawn if self._wait(drawn, own, now) == wait else replica
            at = bisect_left(order, ((speed, queued + 1),), after)
        return best

    def _wait(self, replica: Replica, own: int, now: float) -> float:
        """Return the bound on the wait and the deference to peers, in seconds."""
        wait = (replica.prefill_tokens + own) / replica.prefill_rate
        if replica.kv_tokens is not None:
            missing = replica.waiting_prompt_tokens + own - (replica.kv_tokens - replica.decode_tokens)
            if missing > 0:
                wait = max(wait, self._memory_weight * missing / replica.kv_free_rate(now))
        return wait + replica.deference_s if replica.deference_s else wait
