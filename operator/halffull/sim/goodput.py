"""The largest load at which a contender meets the objective: bisection, for each seed. Called by `simulate`."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from halffull.api.scenario import Contender
from halffull.sim.measure import play
from halffull.sim.setting import Setting

STEP = 0.01
LARGEST = 2.56
"""loads are searched among multiples of STEP up to here, 8 runs for each seed"""


@dataclass(frozen=True, slots=True)
class Goodput:
    """Largest loads of one contender, by seed, and the mean."""

    contender: str
    loads: tuple[float, ...]

    @property
    def load(self) -> float:
        """Mean over the seeds; 0 where not even the smallest load meets the objective."""
        return sum(self.loads) / len(self.loads)


def goodputs(setting: Setting, jobs: int, done: Callable[[], None]) -> list[Goodput]:
    """Search for every contender and seed, in parallel; `done` is called after each."""
    scenario = setting.scenario
    tasks = [(contender, seed) for contender in scenario.contenders for seed in range(scenario.seeds)]
    loads: dict[tuple[str, int], float] = {}
    with ProcessPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(largest_load, setting, contender, seed): (contender.name, seed) for contender, seed in tasks
        }
        for future in as_completed(futures):
            loads[futures[future]] = future.result()
            done()
    return [
        Goodput(contender.name, tuple(loads[contender.name, seed] for seed in range(scenario.seeds)))
        for contender in scenario.contenders
    ]


def largest_load(setting: Setting, contender: Contender, seed: int) -> float:
    """Bisect; takes it that a load which meets the objective does so at all smaller ones."""
    low, high = 0, round(LARGEST / STEP)
    while high - low > 1:
        middle = (low + high) // 2
        if _meets(setting.at_load(middle * STEP), contender, seed):
            low = middle
        else:
            high = middle
    return low * STEP


def _meets(setting: Setting, contender: Contender, seed: int) -> bool:
    return play(setting, contender, seed).figures.good >= setting.scenario.objective.share
