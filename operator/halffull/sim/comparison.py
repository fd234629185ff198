"""Compares contenders over seeds: runs in parallel processes, means, spreads, and ratios paired by seed. Called by `simulate`."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from math import exp, inf, log
from typing import Any

from halffull.sim.measure import Figures, Run, play
from halffull.sim.setting import Setting


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times better than the baseline, run by run of the same seed: geometric mean and range."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One contender over all seeds."""

    contender: str
    runs: tuple[Run, ...]
    ratio: Ratio
    """the baseline's p99 of TTFT over this one's"""

    def mean(self, figure: str) -> float:
        """Mean of a figure (an attribute of Figures) over the seeds."""
        values = self._values(figure)
        return sum(values) / len(values)

    def half_range(self, figure: str) -> float:
        """Half the difference between the largest and the smallest over the seeds."""
        values = self._values(figure)
        return (max(values) - min(values)) / 2

    def document(self) -> dict[str, Any]:
        """Return what goes to JSON."""
        names = [name for name in asdict(self.runs[0].figures) if name != "failed"]
        return {
            "name": self.contender,
            "mean": {name: self.mean(name) for name in names},
            "ratioTtftP99": asdict(self.ratio),
            "runs": [{"seed": run.seed} | asdict(run.figures) for run in self.runs],
        }

    def _values(self, figure: str) -> list[float]:
        return [getattr(run.figures, figure) for run in self.runs]


def compare(setting: Setting, jobs: int, done: Callable[[Run], None], *, timeline: bool = False) -> list[Summary]:
    """Run every contender with every seed; `done` is called after each run. `timeline`: of seed 0."""
    scenario = setting.scenario
    runs = list(_runs(setting, jobs, done, timeline=timeline))
    by_name = {
        contender.name: sorted((run for run in runs if run.contender == contender.name), key=lambda run: run.seed)
        for contender in scenario.contenders
    }
    baseline = by_name[scenario.baseline or scenario.contenders[0].name]
    return [Summary(name, tuple(own), paired(baseline, own)) for name, own in by_name.items()]


def paired(baseline: Sequence[Run], runs: Sequence[Run]) -> Ratio:
    """Ratios of the p99 of TTFT, the baseline's over the other's, of runs with the same seeds."""
    ratios = [_ratio(base.figures, own.figures) for base, own in zip(baseline, runs, strict=True)]
    return Ratio(exp(sum(map(log, ratios)) / len(ratios)), min(ratios), max(ratios))


def _ratio(base: Figures, own: Figures) -> float:
    return base.ttft_p99 / own.ttft_p99 if 0 < own.ttft_p99 < inf else 1.0


def _runs(setting: Setting, jobs: int, done: Callable[[Run], None], *, timeline: bool) -> Iterator[Run]:
    scenario = setting.scenario
    tasks = [(contender, seed) for seed in range(scenario.seeds) for contender in scenario.contenders]
    if jobs == 1:
        for contender, seed in tasks:
            run = play(setting, contender, seed, timeline=timeline and seed == 0)
            done(run)
            yield run
        return
    with ProcessPoolExecutor(jobs) as pool:
        futures = [
            pool.submit(play, setting, contender, seed, timeline=timeline and seed == 0) for contender, seed in tasks
        ]
        for future in as_completed(futures):
            run = future.result()
            done(run)
            yield run
