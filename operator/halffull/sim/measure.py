"""Plays one run and reduces it to figures. Called by `comparison` and `goodput`, in processes of their own."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, inf
from operator import attrgetter

from halffull.api.scenario import Contender
from halffull.sim.demand import Demand
from halffull.sim.setting import Setting
from halffull.sim.simulation import Simulation

UNMEASURED = 0.1
"""requests that arrive in this first part of the arrivals are not measured: the fleet starts empty"""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run; times in seconds. A request that failed has no times and is not good."""

    requests: int
    """measured ones"""
    failed: dict[str, int]
    """by reason"""
    ttft_mean: float
    ttft_p50: float
    ttft_p90: float
    ttft_p95: float
    ttft_p99: float
    tpot_p99: float
    """of the mean time per token after the first, of each request"""
    normalised_latency: float
    """mean of end-to-end time per output token"""
    slowdown_p99: float
    """of TTFT over that of the request alone on one replica"""
    good: float
    """share of requests that met the objective"""
    goodput: float
    """requests a second that met it"""
    tokens_per_second: float
    preemptions: float
    """per request"""
    prefix_hits: float
    """share of prompt tokens found in the prefix cache"""


@dataclass(frozen=True, slots=True)
class Run:
    """One contender and seed."""

    contender: str
    seed: int
    figures: Figures
    ttft: tuple[float, ...]
    """of each measured request, sorted"""
    timeline: tuple[tuple[float, tuple[int, ...]], ...] = ()
    """(seconds, requests in flight at each replica), if asked for"""


def play(setting: Setting, contender: Contender, seed: int, *, timeline: bool = False) -> Run:
    """Run once."""
    moments: list[tuple[float, tuple[int, ...]]] = []

    def watch(simulation: Simulation) -> None:
        if not moments or simulation.now - moments[-1][0] >= 1:
            moments.append((simulation.now, simulation.in_flight()))

    simulation = Simulation(setting, contender, seed, watch=watch if timeline else None)
    simulation.run()
    ttft, found = _came_out(simulation, setting, contender)
    return Run(contender.name, seed, found, tuple(ttft), tuple(moments))


def play_if_good(setting: Setting, contender: Contender, seed: int) -> Figures | None:
    """Run once; None where too few requests meet the objective, as soon as that is certain."""
    watch = _Hopeless(setting, pooled=contender.bound == "super")
    simulation = Simulation(setting, contender, seed, watch=watch)
    watch.measured = [] if setting.scenario.clients.sessions else _measured(simulation.demands)
    simulation.run()
    if watch.stopped:
        return None
    _, found = _came_out(simulation, setting, contender)
    return found if found.good >= setting.scenario.objective.share else None


def _came_out(simulation: Simulation, setting: Setting, contender: Contender) -> tuple[list[float], Figures]:
    """Return the sorted times to the first token of a run that is over, and its figures."""
    measured, pooled = _measured(simulation.demands), contender.bound == "super"
    ttft = sorted(_ttft(demand, setting, pooled=pooled) for demand in measured if not demand.failure)
    return ttft, figures(measured, setting, ttft, pooled=pooled)


class _Hopeless:
    """Stops a run whose objective is out of reach: looks at each request once its time is over, by arrival."""

    def __init__(self, setting: Setting, *, pooled: bool) -> None:
        self.measured: Sequence[Demand] = []
        """empty where arrivals are not known beforehand: the run is played to its end"""
        self.stopped = False
        self._setting = setting
        self._pooled = pooled
        self._next = self._missed = 0

    def __call__(self, simulation: Simulation) -> None:
        setting, measured = self._setting, self.measured
        while self._next < len(measured):
            demand = measured[self._next]
            if demand.arrived + _limit_s(demand, setting) >= simulation.now:
                return
            self._next += 1
            in_time = demand.first is not None and _is_good(demand, setting, pooled=self._pooled)
            self._missed += not in_time
            if (len(measured) - self._missed) / len(measured) < setting.scenario.objective.share:
                self.stopped = True
                simulation.stop()
                return


def figures(measured: Sequence[Demand], setting: Setting, ttft: Sequence[float], *, pooled: bool) -> Figures:
    """Reduce what became of requests to figures; `ttft` sorted."""
    whole = [demand for demand in measured if not demand.failure]
    slowdowns = sorted(
        _ttft(demand, setting, pooled=pooled) / setting.solo_seconds(demand.prompt_tokens) for demand in whole
    )
    tpot = sorted(_tpot(demand) for demand in whole if demand.output_tokens > 1)
    good = sum(_is_good(demand, setting, pooled=pooled) for demand in whole)
    arrived = measured[-1].arrived - measured[0].arrived or 1.0
    lasted = max((demand.ended or 0.0) for demand in measured) - measured[0].arrived or 1.0
    return Figures(
        requests=len(measured),
        failed=dict(Counter(demand.failure for demand in measured if demand.failure)),
        ttft_mean=sum(ttft) / len(ttft) if ttft else inf,
        ttft_p50=percentile(ttft, 0.5),
        ttft_p90=percentile(ttft, 0.9),
        ttft_p95=percentile(ttft, 0.95),
        ttft_p99=percentile(ttft, 0.99),
        tpot_p99=percentile(tpot, 0.99),
        normalised_latency=sum((d.ended or 0.0) - d.arrived for d in whole)
        and sum(((d.ended or 0.0) - d.arrived) / d.output_tokens for d in whole) / len(whole),
        slowdown_p99=percentile(slowdowns, 0.99),
        good=good / len(measured),
        goodput=good / arrived,
        tokens_per_second=sum(demand.output_tokens for demand in whole) / lasted,
        preemptions=sum(demand.preemptions for demand in measured) / len(measured),
        prefix_hits=sum(d.cached_tokens for d in measured) / sum(d.prompt_tokens for d in measured),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, interpolated between neighbours; infinite of nothing."""
    if not ordered:
        return inf
    place = share * (len(ordered) - 1)
    low = floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _measured(demands: Sequence[Demand]) -> list[Demand]:
    demands = sorted(demands, key=attrgetter("arrived"))
    since = demands[0].arrived + UNMEASURED * (demands[-1].arrived - demands[0].arrived)
    return [demand for demand in demands if demand.arrived >= since]


def _ttft(demand: Demand, setting: Setting, *, pooled: bool) -> float:
    """Seconds to the first token; the pooled replica is not given the speed that no single replica has."""
    ttft = (demand.first or 0.0) - demand.arrived
    return max(ttft, setting.solo_seconds(demand.prompt_tokens)) if pooled else ttft


def _tpot(demand: Demand) -> float:
    return ((demand.ended or 0.0) - (demand.first or 0.0)) / (demand.output_tokens - 1)


def _is_good(demand: Demand, setting: Setting, *, pooled: bool) -> bool:
    return _ttft(demand, setting, pooled=pooled) <= _limit_s(demand, setting)


def _limit_s(demand: Demand, setting: Setting) -> float:
    """Seconds to the first token within which the objective wants it."""
    objective = setting.scenario.objective
    if objective.slowdown is None:
        return objective.ttft_seconds
    return objective.slowdown * setting.solo_seconds(demand.prompt_tokens)
