"""One cell is one scheduler on one workload: figures of every seed, played in parallel processes. Called by `judge`.

A cell is played at its load, or the largest load that meets its objective is searched: first for seed 0 alone, then for
the others from there, which takes about five runs each.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from halffull.api.scenario import Scenario
from halffull.sim.goodput import Found, largest_load
from halffull.sim.measure import Figures, play
from halffull.sim.setting import Setting, SettingError, setting
from halffull.sim.trace import TraceError

FIRST_GUESS = 0.9
"""load at which a search begins"""


@dataclass(frozen=True)
class Cell:
    """One scheduler on one workload."""

    name: str
    scenario: Mapping[str, Any]
    """fields of the scenario, but for contenders and trace"""
    scheduling: Mapping[str, Any]
    """as in a ModelDeployment"""
    search: bool = False
    """whether the largest load is searched, at which the scenario's objective is met"""


@dataclass
class Played:
    """What came out, by seed."""

    figures: dict[int, Figures] = field(default_factory=dict)
    """at the cell's load, or at the largest one; absent where that is 0"""
    loads: dict[int, float] = field(default_factory=dict)

    def values(self, figure: str) -> list[float]:
        """A figure, or `load`, of each seed in their order."""
        if figure == "load":
            return [self.loads[seed] for seed in sorted(self.loads)]
        return [getattr(self.figures[seed], figure) for seed in sorted(self.figures)]


def settings(cells: Iterable[Cell], traces: str | None) -> tuple[dict[str, Setting], dict[str, str]]:
    """Make each cell's setting; also return why others cannot be played, by name of the cell."""
    made: dict[str, Setting] = {}
    missing: dict[str, str] = {}
    measured: dict[str, Setting | str] = {}
    for cell in cells:
        contender = {"name": cell.name[:60], "scheduling": dict(cell.scheduling)}
        key = repr(sorted(cell.scenario.items()))
        if key not in measured:
            measured[key] = _setting({**cell.scenario, "trace": traces})
        one = measured[key]
        if isinstance(one, str):
            missing[cell.name] = one
        else:
            document = Scenario.model_validate({**cell.scenario, "trace": traces, "contenders": [contender]})
            made[cell.name] = replace(one, scenario=document)
    return made, missing


def _setting(fields: Mapping[str, Any]) -> Setting | str:
    try:
        return setting(Scenario.model_validate(fields))
    except (SettingError, TraceError) as error:
        return str(error)


def play_all(
    cells: Iterable[Cell], made: Mapping[str, Setting], seeds: int, jobs: int, done: Callable[[], None]
) -> dict[str, Played]:
    """Play every cell that has a setting; `done` is called `seeds` times for each."""
    played = {cell.name: Played() for cell in cells if cell.name in made}
    searched = {cell.name: cell.search for cell in cells}
    with ProcessPoolExecutor(jobs) as pool:
        tasks: dict[Future[Found], tuple[str, int]] = {}

        def submit(name: str, seed: int, near: float) -> None:
            task = pool.submit(_one, made[name], seed, near, search=searched[name])
            tasks[task] = (name, seed)

        for name in played:
            submit(name, 0, FIRST_GUESS)
            if not searched[name]:
                for seed in range(1, seeds):
                    submit(name, seed, FIRST_GUESS)
        while tasks:
            finished = next(as_completed(tasks))
            name, seed = tasks.pop(finished)
            found = finished.result()
            played[name].loads[seed] = found.load
            if found.figures is not None:
                played[name].figures[seed] = found.figures
            done()
            if searched[name] and seed == 0:
                for other in range(1, seeds):
                    submit(name, other, found.load)
    return played


def _one(plan: Setting, seed: int, near: float, *, search: bool) -> Found:
    contender = plan.scenario.contenders[0]
    if search:
        return largest_load(plan, contender, seed, near)
    return Found(plan.load, play(plan, contender, seed).figures)
