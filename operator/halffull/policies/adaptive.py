"""Policy `adaptive`: a mixture of other policies, whose shares are learned from the times to the first token that were seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import exp, log
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request
from halffull.policies.kv_cost import KvCost, KvCostParameters
from halffull.policies.least_requests import LeastRequests
from halffull.policies.predicted_ttft import PredictedTtft, PredictedTtftParameters
from halffull.policies.sal import Sal, SalParameters

PENDING = 8192
"""decisions whose outcome is awaited"""
BASELINE_KEEP = 0.98
"""weight that earlier outcomes keep in what is expected"""
STEEPEST = 3.0
"""bound on one outcome's distance from what was expected, in powers of e"""


@dataclass(frozen=True, slots=True)
class AdaptiveParameters:
    """Parameters of policy `adaptive`."""

    learning_rate: Annotated[float, Bounds(gt=0, le=1)] = 0.02
    """step of the gradient per outcome"""
    exploration: Annotated[float, Bounds(ge=0, le=1)] = 0.04
    """part of the decisions that is spread evenly over the bases, so that each can come back"""


@dataclass(slots=True)
class _Decision:
    """What was likely when a request was placed: each base's share, and which of them picked the replica."""

    shares: list[float]
    agreed: list[bool]


class Adaptive(Policy):
    """Intent: the best of several policies without knowing which that is. Inputs: those of its bases (`sal`, `predicted-ttft`,
    `kv-cost`, `least-requests`), times to first tokens. Cost: the sum of its bases'.

    Use it where the workload is unknown or changes by the hour. Do not use it where you know: it pays for trying others,
    some percent of its time to the first token, and more in its first thousand requests.

    Every base names its replica; one is drawn by the shares. When the first token comes, the shares of all bases that named
    the replica rise or fall with -log(time), relative to the recent mean, and to how likely that replica was
    (policy gradient of the mixture). A floor on each share lets every base come back. On simulated workloads it stays within
    10 % of its worst base, in mean and 99th percentile, from its first request on (tested). Source: improper reinforcement
    learning over given controllers (arXiv 2102.08201).
    """

    reads_prefixes = True

    def __init__(self, parameters: AdaptiveParameters) -> None:
        self._parameters = parameters
        self._bases: dict[str, Policy] = {
            "sal": Sal(SalParameters()),
            "predicted-ttft": PredictedTtft(PredictedTtftParameters()),
            "kv-cost": KvCost(KvCostParameters()),
            "least-requests": LeastRequests(),
        }
        self._scores = [0.0] * len(self._bases)
        self._pending: dict[str, _Decision] = {}
        self._expected: float | None = None
        self._seen: int | None = None

    def figures(self) -> Mapping[str, float]:
        """Return the share of each base."""
        return dict(zip(self._bases, self._shares(), strict=True))

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return the pick of a base that is drawn by its share."""
        self._learn(context)
        shares = self._shares()
        picks = [base.choose(request, candidates, context) for base in self._bases.values()]
        left, chosen = context.rng.random(), picks[-1]
        for share, pick in zip(shares, picks, strict=True):
            left -= share
            if left < 0:
                chosen = pick
                break
        if request.stream:
            self._pending[request.id] = _Decision(shares, [pick is chosen for pick in picks])
            if len(self._pending) > PENDING:
                del self._pending[next(iter(self._pending))]
        return chosen

    def added(self, replica: Replica) -> None:
        """Tell the bases."""
        for base in self._bases.values():
            base.added(replica)

    def changed(self, replica: Replica) -> None:
        """Tell the bases."""
        for base in self._bases.values():
            base.changed(replica)

    def removed(self, replica: Replica) -> None:
        """Tell the bases."""
        for base in self._bases.values():
            base.removed(replica)

    def _shares(self) -> list[float]:
        highest, count = max(self._scores), len(self._scores)
        weights = [exp(score - highest) for score in self._scores]
        total, even = sum(weights), self._parameters.exploration
        return [(1 - even) * weight / total + even / count for weight in weights]

    def _learn(self, context: Context) -> None:
        """Take the first tokens that were seen since the last decision."""
        books = context.books
        new = 0 if self._seen is None else min(books.first_tokens - self._seen, len(books.started))
        self._seen = books.first_tokens
        for request, seconds in islice(books.started, len(books.started) - new, None):
            decision = self._pending.pop(request.id, None)
            if decision is not None:
                self._step(decision, -log(max(seconds, 1e-4) / (context.prefill_s(request) + 0.01)))

    def _step(self, decision: _Decision, reward: float) -> None:
        expected = reward if self._expected is None else self._expected
        self._expected = BASELINE_KEEP * expected + (1 - BASELINE_KEEP) * reward
        gain = max(min(reward - expected, STEEPEST), -STEEPEST) * self._parameters.learning_rate
        likely = sum(share for share, agreed in zip(decision.shares, decision.agreed, strict=True) if agreed)
        for place, (share, agreed) in enumerate(zip(decision.shares, decision.agreed, strict=True)):
            self._scores[place] += gain * share * (agreed / likely - 1)
