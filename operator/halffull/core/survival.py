"""How long answers get: a fading histogram of finished ones, by kind of request. Kept in the books, read by orderings.

A kind is who asks and how high `max_tokens` is; where little is known of a kind, all answers speak for it.
"""

from collections import deque
from collections.abc import Hashable
from math import log2

from halffull.core.values import Request

PER_OCTAVE = 4
"""buckets per doubling of length: means inside a bucket differ by at most 19 %"""
BUCKETS = 17 * PER_OCTAVE
"""up to 128 k tokens"""
KEEP = 0.999
"""weight that old evidence keeps at each further answer: the last thousand speak"""
ENOUGH = 50.0
"""answers from which a kind speaks for itself"""
UNREAD = 512
"""latest answers that are kept until somebody asks; with most orderings nobody does"""
KINDS = 1024
"""kinds remembered"""
PRIOR_TOKENS = 250.0
"""length of an answer before any has ended"""


class Histogram:
    """Lengths in logarithmic buckets, with the sum of tokens in each."""

    __slots__ = ("_counts", "_sums", "_unit", "total")

    def __init__(self) -> None:
        self._counts = [0.0] * BUCKETS
        self._sums = [0.0] * BUCKETS
        self._unit = 1.0
        self.total = 0.0
        """answers, old ones counted less"""

    def add(self, tokens: int) -> None:
        """Note an answer. Fading is done by giving each new one more weight than those before."""
        self._unit /= KEEP
        bucket = _bucket(tokens)
        self._counts[bucket] += self._unit
        self._sums[bucket] += self._unit * tokens
        self.total = self.total * KEEP + 1.0
        if self._unit > 1e100:
            self._counts = [count / self._unit for count in self._counts]
            self._sums = [tokens / self._unit for tokens in self._sums]
            self._unit = 1.0

    def left(self, so_far: int, limit: int | None) -> float | None:
        """Mean of what is still to come of an answer of `so_far` tokens that ends at `limit`; None: none was so long."""
        count = tokens = 0.0
        cap = float("inf") if limit is None else float(limit)
        for bucket in range(_bucket(so_far + 1), BUCKETS):
            here = self._counts[bucket]
            if here:
                count += here
                tokens += here * min(max(self._sums[bucket] / here, so_far + 1.0), cap)
        return tokens / count - so_far if count else None


class Survival:
    """Histograms by kind of request."""

    def __init__(self) -> None:
        self._all = Histogram()
        self._kinds: dict[Hashable, Histogram] = {}
        self._unread: deque[tuple[Request, int]] = deque(maxlen=UNREAD)

    def add(self, request: Request, tokens: int) -> None:
        """Note that an answer was complete with `tokens`."""
        self._unread.append((request, tokens))

    def _learn(self, request: Request, tokens: int) -> None:
        self._all.add(tokens)
        kind = _kind(request)
        histogram = self._kinds.pop(kind, None) or Histogram()
        self._kinds[kind] = histogram  # the last one seen is the last one forgotten
        histogram.add(tokens)
        if len(self._kinds) > KINDS:
            del self._kinds[next(iter(self._kinds))]

    def left(self, request: Request, so_far: int = 0) -> float:
        """Tokens that are expected still to come of the answer to `request`, of which there are `so_far`."""
        while self._unread:
            self._learn(*self._unread.popleft())
        histogram = self._kinds.get(_kind(request))
        if histogram is None or histogram.total < ENOUGH:
            histogram = self._all
        left = histogram.left(so_far, request.max_tokens)
        if left is None:
            left = max(PRIOR_TOKENS, float(so_far))
        return left if request.max_tokens is None else max(min(left, request.max_tokens - so_far), 0.0)


def _kind(request: Request) -> tuple[str, int]:
    return request.caller, 0 if request.max_tokens is None else request.max_tokens.bit_length()


def _bucket(tokens: int) -> int:
    return min(int(PER_OCTAVE * log2(max(tokens, 1))), BUCKETS - 1)
