"""Ratios paired by seed: geometric means with their 95 % interval. Called by `goals`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from statistics import fmean, stdev

STUDENT = (
    inf,
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)
"""two-sided 95 % quantiles of Student's t by degrees of freedom, from 0"""
SMALLEST = 0.005
"""stands for a load of 0 in ratios: half the step of the search"""


@dataclass(frozen=True)
class Estimate:
    """A geometric mean and its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}-{self.high:.3f}]"


def geometric(samples: Sequence[Sequence[float]]) -> Estimate:
    """Mean over cases within each seed, then over seeds; `samples` holds one sequence of ratios, by seed, for each case."""
    logs = [fmean(log(ratio) for ratio in seed) for seed in zip(*samples, strict=True)]
    mean = fmean(logs)
    freedom = len(logs) - 1
    quantile = STUDENT[freedom] if freedom < len(STUDENT) else 1.96 + 2.5 / freedom
    half = quantile * stdev(logs) / sqrt(len(logs)) if freedom else inf
    return Estimate(exp(mean), exp(mean - half), exp(min(mean + half, 700.0)))


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Ratios of values with the same seed."""
    return [max(above, SMALLEST) / max(below, SMALLEST) for above, below in zip(over, under, strict=True)]
