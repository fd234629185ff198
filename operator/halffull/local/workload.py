"""Makes the list of calls to send: lengths from a trace or a distribution, arrivals from the trace or a Poisson process.

Called by `load` and `demo`; deterministic for a seed.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice, repeat, takewhile
from math import log
from random import Random

from halffull.sim.trace import Call


def lognormal_lengths(count: int, prompt_tokens: float, output_tokens: float, spread: float, rng: Random) -> list[Call]:
    """`count` calls at time 0 whose lengths are lognormal around the two medians (tokens); `spread` is sigma."""
    return [Call(0.0, _length(prompt_tokens, spread, rng), _length(output_tokens, spread, rng)) for _ in range(count)]


def _length(median: float, spread: float, rng: Random) -> int:
    return max(1, round(rng.lognormvariate(log(median), spread)))


def drawn(pool: Sequence[Call], rng: Random) -> Iterator[Call]:
    """Calls of the pool without end, each round in another order."""
    while True:
        yield from rng.sample(pool, len(pool))


def poisson(calls: Iterable[Call], rate: float, rng: Random) -> Iterator[Call]:
    """The same calls with independent arrivals, `rate` a second on average."""
    arrivals = accumulate(rng.expovariate(rate) for _ in repeat(None))
    for at_s, call in zip(arrivals, calls, strict=False):
        yield Call(at_s, call.prompt_tokens, call.output_tokens, call.blocks)


def faster(calls: Iterable[Call], speedup: float) -> Iterator[Call]:
    """The same calls with every gap between arrivals divided by `speedup`."""
    for call in calls:
        yield Call(call.at_s / speedup, call.prompt_tokens, call.output_tokens, call.blocks)


def at_rate(calls: Sequence[Call], rate: float) -> Iterator[Call]:
    """The pattern of arrivals as it was recorded, in another tempo: `rate` requests a second on average."""
    recorded_s = calls[-1].at_s
    wanted_s = (len(calls) - 1) / rate
    return faster(calls, recorded_s / wanted_s) if recorded_s and wanted_s else iter(calls)


def limited(calls: Iterable[Call], requests: int | None, seconds: float | None) -> Iterator[Call]:
    """The first `requests` of them, and of these only what arrives within `seconds`."""
    first = calls if requests is None else islice(calls, requests)
    return iter(first) if seconds is None else takewhile(lambda call: call.at_s < seconds, first)


def has_arrivals(calls: Sequence[Call]) -> bool:
    """Whether the trace says when requests came."""
    return calls[-1].at_s > 0


def mixed(*pools: Sequence[Call]) -> list[Call]:
    """All calls of several pools as one."""
    return list(chain.from_iterable(pools))
