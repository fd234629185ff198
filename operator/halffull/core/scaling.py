"""How many replicas the load asks for: the scale signal. Called by the operator's rounds; pure.

As Llumnix scales on the freeness of its instances (arXiv 2406.03243), by KV headroom and queueing, with hysteresis: demand is
counted in replicas, as the KV cache in use plus what waits, in engines and routers, over what one replica runs at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from halffull.core.values import Signals

MOST = 10_000
"""replicas that a ModelDeployment may ask for; an engine may say that any number of requests wait"""


@dataclass(frozen=True, slots=True)
class Settings:
    """When demand means another number of replicas. Times in seconds."""

    high: float = 0.7
    """demand per replica above which there are too few"""
    low: float = 0.5
    """... and below which there are too many: the fewest replicas with less than this each are enough"""
    up_s: float = 30.0
    """how long demand must have been too high throughout"""
    down_s: float = 300.0
    """how long it must have been low throughout"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look."""

    at: float
    demand: float
    """in replicas"""
    whole: bool
    """whether every replica told how full it is; else there may be more"""
    told: bool = True
    """whether any did; else it is not known how much of a replica what waits is"""


@dataclass(frozen=True, slots=True)
class Demand:
    """What was seen lately, and what came of it."""

    samples: tuple[Sample, ...] = ()
    desired: int | None = None
    """replicas; None: nothing was seen yet"""


def demand(signals: Mapping[str, Signals | None], queued: int) -> float:
    """Return the demand in replicas; `signals` of those that should serve, `queued`: requests that wait in routers.

    Where none tells, as while the first one starts, what waits is taken for one replica's, however much it is.
    """
    told = [each for each in signals.values() if each is not None]
    if not told:
        return float(queued > 0)
    used = sum(each.kv_usage or 0.0 for each in told)
    waiting = queued + sum(each.waiting or 0.0 for each in told)
    running = sum(each.running or 0.0 for each in told)
    return used + waiting / max(running / len(told), 1.0)


def scaled(
    state: Demand,
    signals: Mapping[str, Signals | None],
    queued: int,
    current: int,
    *,
    now: float,
    settings: Settings | None = None,
) -> Demand:
    """Take one look; return what is known then. `current`: replicas that are wanted now.

    From zero the first request that waits asks for one replica at once.
    """
    limits = settings or Settings()
    told = [each for each in signals.values() if each is not None]
    full = [each for each in told if each.kv_usage is not None or not each.running]
    sample = Sample(now, demand(signals, queued), whole=len(full) == len(signals), told=bool(told))
    samples = (*(s for s in state.samples if now - s.at <= limits.down_s), sample)
    if current == 0:
        return Demand(samples, 1 if queued else 0)
    recent = [s.demand if s.told else 0.0 for s in samples if now - s.at <= limits.up_s]
    since = now - samples[0].at
    desired = current
    if since >= limits.up_s and (up := min(ceil(min(recent) / limits.high), MOST)) > current:
        desired = up
    elif since >= limits.down_s * 0.95 and all(s.whole for s in samples):
        desired = min(current, ceil(max(s.demand for s in samples) / limits.low))
    return Demand(samples, desired)
