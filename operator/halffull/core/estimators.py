"""What the books learn by themselves: decayed rates and ratios. Each takes the time as an argument."""

from math import exp


class Rate:
    """Amount per second of activity, with old evidence fading by half every `half_life_s` seconds of clock time.

    Amount and seconds decay alike, so the quotient stays where it is while nothing new is learned.
    """

    __slots__ = ("_amount", "_decay", "_seconds", "_seen")

    def __init__(self, half_life_s: float) -> None:
        self._decay = 0.6931471805599453 / half_life_s
        self._amount = 0.0
        self._seconds = 0.0
        self._seen = 0.0

    def add(self, amount: float, seconds: float, now: float) -> None:
        """Note that `amount` took `seconds` of activity, ending at `now`."""
        if now > self._seen:
            keep = exp(-self._decay * (now - self._seen))
            self._amount *= keep
            self._seconds *= keep
            self._seen = now
        self._amount += amount
        self._seconds += seconds

    @property
    def per_second(self) -> float:
        """Amount per second of clock time, for what is counted without seconds of activity."""
        return self._amount * self._decay

    def value(self, prior: float, prior_amount: float) -> float:
        """The rate, pulled towards `prior` as if `prior_amount` had been seen at that rate."""
        return (self._amount + prior_amount) / (self._seconds + prior_amount / prior)


class Residual:
    """How much longer what is under way lasts on average: E[d^2] / 2 E[d] of what has ended (renewal theory).

    Old evidence fades by half every `half_life` pieces.
    """

    __slots__ = ("_keep", "_squares", "_sum")

    def __init__(self, prior_s: float, half_life: float = 500.0) -> None:
        self._keep = exp(-0.6931471805599453 / half_life)
        self._sum = 10 * prior_s
        self._squares = 20 * prior_s * prior_s

    def add(self, seconds: float) -> None:
        """Note what lasted this long."""
        self._sum = self._keep * self._sum + seconds
        self._squares = self._keep * self._squares + seconds * seconds

    @property
    def value(self) -> float:
        """Mean time left, seconds."""
        return self._squares / (2 * self._sum)


class Ratio:
    """A ratio of two sums over recent evidence: the weight of old evidence fades with each new piece.

    Used for bytes per token, where evidence is `usage` of an answer (design §6).
    """

    __slots__ = ("_keep", "_over", "_under", "evidence")

    def __init__(self, prior: float, *, weight: float = 1000.0, keep: float = 0.99) -> None:
        self._over = prior * weight
        self._under = weight
        self._keep = keep
        self.evidence = 0
        """pieces of evidence seen"""

    def restart(self, prior: float) -> None:
        """Begin anew from another prior."""
        self._over, self.evidence = prior * self._under, 0

    def add(self, over: float, under: float) -> None:
        """Learn from one piece, e.g. `over` bytes of prompt that were `under` tokens."""
        self._over = self._over * self._keep + over
        self._under = self._under * self._keep + under
        self.evidence += 1

    @property
    def value(self) -> float:
        """The ratio as learned so far."""
        return self._over / self._under
