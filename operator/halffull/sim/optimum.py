"""The exact optimum of small cases: how far from the best assignment a scheduler is. Called by `simulate` (`--optimum`).

A case is a few requests that come at about the same time; what they need is their prompt's time alone on a replica, one
after another. The engine shares a step between short prompts, so that it can be some percent better than this optimum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp, inf, log

from halffull.sim.setting import Setting
from halffull.sim.simulation import Simulation

MOST_REQUESTS = 9
"""requests up to which the optimum is searched: its cost grows with the number of ways to part them"""


@dataclass(frozen=True, slots=True)
class Distance:
    """How many times the optimum a contender's figures are: geometric means over the cases."""

    contender: str
    makespan: float
    mean_flow: float


@dataclass(frozen=True, slots=True)
class Optimum:
    """The least that an assignment of jobs to machines can have, each by itself, in seconds."""

    makespan: float
    """from the first arrival to the last end"""
    mean_flow: float
    """mean time from arrival to end"""


def optimum(jobs: Sequence[tuple[float, float]], machines: int) -> Optimum:
    """Search all ways to run `jobs` (arrival, seconds) on equal machines, one after another and without interruption.

    Raises ValueError for more than `MOST_REQUESTS` jobs.
    """
    if len(jobs) > MOST_REQUESTS:
        raise ValueError(f"the optimum of {len(jobs)} requests would take too long; at most {MOST_REQUESTS}")
    makespan, total = _Search(sorted(jobs)).part((1 << len(jobs)) - 1, machines)
    return Optimum(makespan - min(jobs)[0], total / len(jobs))


class _Search:
    """Best figures of sets of jobs, a set being the bits of an integer. Each is worked out once."""

    def __init__(self, jobs: Sequence[tuple[float, float]]) -> None:
        """`jobs` by arrival."""
        self._jobs = jobs
        self.end = cache(self._end)
        self.flow = cache(self._flow)
        self.part = cache(self._part)

    def _end(self, chosen: int) -> float:
        """Least end on one machine: that of the order of arrival."""
        now = 0.0
        for number, (arrived, seconds) in enumerate(self._jobs):
            if chosen >> number & 1:
                now = max(now, arrived) + seconds
        return now

    def _flow(self, chosen: int) -> float:
        """Least sum of flow times on one machine: of all orders, but those that are worse before their end."""
        best = inf
        begun = [(chosen, 0.0, 0.0)]
        while begun:
            left, now, total = begun.pop()
            if total >= best:
                continue
            if not left:
                best = total
            for number, (arrived, seconds) in enumerate(self._jobs):
                if left >> number & 1:
                    ends = max(now, arrived) + seconds
                    begun.append((left & ~(1 << number), ends, total + ends - arrived))
        return best

    def _part(self, left: int, count: int) -> tuple[float, float]:
        """Least makespan and least sum of flow times on `count` machines: of all ways to part the jobs among them."""
        if count == 1 or not left:
            return self.end(left), self.flow(left)
        first = left & -left
        rest = chosen = left ^ first
        makespan = total = inf
        while True:  # every subset of the rest shares a machine with the first job
            others = self.part(rest ^ chosen, count - 1)
            makespan = min(makespan, max(self.end(chosen | first), others[0]))
            total = min(total, self.flow(chosen | first) + others[1])
            if not chosen:
                return makespan, total
            chosen = (chosen - 1) & rest


def distances(setting: Setting, size: int, done: Callable[[], None]) -> list[Distance]:
    """Play each contender on as many cases of `size` requests as there are seeds, each with other ones; `done` after each case.

    Raises ValueError where a case has too many requests, or the workload too few for all cases.
    """
    scenario = setting.scenario
    cases = [setting.calls[start : start + size] for start in range(0, size * scenario.seeds, size)]
    if len(cases[-1]) < size:
        raise ValueError(f"{len(setting.calls)} requests are too few for {scenario.seeds} cases of {size}")
    logs: dict[str, list[tuple[float, float]]] = {contender.name: [] for contender in scenario.contenders}
    for seed, calls in enumerate(cases):
        case = replace(setting, calls=calls)
        jobs = [(demand.arrived, setting.solo_seconds(demand.prompt_tokens)) for demand in case.demands(seed)]
        best = optimum(jobs, scenario.engines.count)
        for contender in scenario.contenders:
            simulation = Simulation(case, contender, seed)
            simulation.run()
            waits = [(demand.first or inf) - demand.arrived for demand in simulation.demands]
            last = max(demand.first or inf for demand in simulation.demands) - simulation.demands[0].arrived
            logs[contender.name].append((log(last / best.makespan), log(sum(waits) / len(waits) / best.mean_flow)))
        done()
    return [
        Distance(name, *(exp(sum(column) / len(column)) for column in zip(*rows, strict=True)))
        for name, rows in logs.items()
    ]
