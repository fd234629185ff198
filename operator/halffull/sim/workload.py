"""Makes the requests of one simulated run: lengths from a trace or a distribution, arrivals recorded or Poisson, by seed.

Called by `setting`. Seed 0 keeps the trace's own order and pattern; each further seed turns the pattern of arrivals
by another amount and permutes lengths inside windows of `WINDOW` requests, so that slow swings of a trace stay.
"""

from collections.abc import Sequence
from itertools import accumulate, cycle, islice
from math import log
from random import Random

from halffull.sim.presets import Lengths
from halffull.sim.trace import Call

WINDOW = 300
STAMP_S = 3.0
"""arrivals of traces with prompt blocks are rounded to stamps of this many seconds"""


def drawn(lengths: Lengths, count: int, rng: Random) -> list[Call]:
    """`count` calls at time 0 of lognormal lengths."""

    def length(median: float, spread: float) -> int:
        return min(max(1, round(rng.lognormvariate(log(median), spread))), lengths.longest)

    return [
        Call(
            0.0,
            length(lengths.prompt_tokens, lengths.prompt_spread),
            length(lengths.output_tokens, lengths.output_spread),
        )
        for _ in range(count)
    ]


def repeated(calls: Sequence[Call], count: int) -> list[Call]:
    """The first `count` calls; where there are fewer, they are repeated, each round in another order."""
    if count <= len(calls):
        return list(calls[:count])
    rng = Random(0)
    again = (call for _ in cycle((None,)) for call in rng.sample(calls, len(calls)))
    return [*calls, *islice(again, count - len(calls))]


def permuted(calls: Sequence[Call], seed: int) -> list[Call]:
    """The same lengths, permuted inside windows; seed 0: as they are. Calls with prompt blocks stay: turns have an order."""
    if not seed or any(call.blocks for call in calls):
        return list(calls)
    rng = Random(seed)
    windows = (calls[start : start + WINDOW] for start in range(0, len(calls), WINDOW))
    return [call for window in windows for call in rng.sample(window, len(window))]


def poisson_times(count: int, rate: float, seed: int) -> list[float]:
    """`count` independent arrivals, `rate` a second on average."""
    rng = Random(f"arrivals {seed}")
    return list(accumulate(rng.expovariate(rate) for _ in range(count)))


def recorded_times(calls: Sequence[Call], rate: float, seed: int) -> list[float]:
    """The recorded arrivals in the tempo that has `rate` a second on average, turned by a part of their length per seed.

    Where calls have prompt blocks their order matters: further seeds only spread arrivals at random inside their stamps.
    """
    times = [call.at_s for call in calls]
    rng = Random(f"arrivals {seed}")
    if seed and any(call.blocks for call in calls):
        times = sorted(at + rng.random() * STAMP_S for at in times)
    elif seed:
        start = rng.randrange(len(times))
        length = times[-1] + times[-1] / len(times)
        times = [at - times[start] for at in times[start:]] + [at + length - times[start] for at in times[:start]]
    tempo = len(times) / rate / (times[-1] - times[0])
    return [(at - times[0]) * tempo for at in times]
