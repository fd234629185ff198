"""Learns online which of two requests gets the longer answer, from what is known before they run. Used by `learned-rank`.

A linear score over hashed features, trained on pairs of finished requests with a logistic loss (RankNet) and steps that
shrink per feature (AdaGrad). Source: learning to rank instead of predicting lengths, arXiv 2408.15792; the model is ours, since
a router can run no transformer per request.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable
from math import exp, sqrt

from halffull.core.values import Request

STEP = 0.3
PAIRS = 4
"""earlier requests that each finished one is compared with"""
RECENT = 256
"""scores that a rank is relative to"""
WEIGHTS = 1 << 16
"""features remembered"""


class Ranker:
    """Scores requests: the higher, the longer the answer."""

    def __init__(self) -> None:
        self._weights: dict[Hashable, float] = {}
        self._squares: dict[Hashable, float] = {}
        self._earlier: deque[tuple[tuple[Hashable, ...], int]] = deque(maxlen=PAIRS)
        self._order: deque[float] = deque()
        self._sorted: list[float] = []
        self.learned = 0
        """finished requests that it was trained with"""

    def learn(self, request: Request, tokens: int) -> None:
        """Train with a finished request and the length of its answer."""
        features = features_of(request)
        for other, length in self._earlier:
            if length != tokens:
                longer, shorter = (features, other) if tokens > length else (other, features)
                self._step(longer, shorter)
        self._earlier.append((features, tokens))
        self.learned += 1
        score = self._score(features)
        insort(self._sorted, score)
        self._order.append(score)
        if len(self._order) > RECENT:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]

    def score(self, request: Request) -> float:
        """Return the score of a request."""
        return self._score(features_of(request))

    def rank(self, request: Request) -> float:
        """Return the part of recent requests with a lower score, 0 to 1; 0.5 before any is known."""
        return bisect_left(self._sorted, self.score(request)) / len(self._sorted) if self._sorted else 0.5

    def _score(self, features: tuple[Hashable, ...]) -> float:
        weights = self._weights
        return sum(weights.get(feature, 0.0) for feature in features)

    def _step(self, longer: tuple[Hashable, ...], shorter: tuple[Hashable, ...]) -> None:
        """Move the scores of a pair apart, the more the more wrong they are."""
        error = 1 / (1 + exp(min(self._score(longer) - self._score(shorter), 50.0)))
        for sign, features in ((1.0, longer), (-1.0, shorter)):
            for feature in features:
                if feature not in self._weights and len(self._weights) >= WEIGHTS:
                    continue
                square = self._squares.get(feature, 1.0) + error * error
                self._squares[feature] = square
                self._weights[feature] = self._weights.get(feature, 0.0) + sign * STEP * error / sqrt(square)


def features_of(request: Request) -> tuple[Hashable, ...]:
    """What is known before a request runs: length of the prompt, limit, caller, form, and hashes of its text by the host."""
    size = request.prompt_tokens.bit_length()
    near = 4 * request.prompt_tokens >> size  # the two bits below the first
    limit = 0 if request.max_tokens is None else request.max_tokens.bit_length()
    kind = (request.caller, limit)
    return (
        ("size", size), ("near", size, near), ("limit", limit), ("caller", request.caller), ("kind", *kind),
        ("kind, size", *kind, size), ("stream", request.stream), *request.features,
    )  # fmt: skip
