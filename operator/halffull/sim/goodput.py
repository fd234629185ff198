"""The largest load at which a contender meets the objective, for each seed. Called by `simulate`, and by benchmarks."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from halffull.api.scenario import Contender
from halffull.sim.measure import Figures, play_if_good
from halffull.sim.setting import Setting

STEP = 0.01
LARGEST = 2.56
"""loads are searched among multiples of STEP up to here"""
FIRST_WIDTH = 4
"""steps from the first guess to the second; then twice as many, until the answer is between two loads"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found."""

    load: float
    """0: not even the smallest load meets the objective"""
    figures: Figures | None
    """of the run at that load"""


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
            loads[futures[future]] = future.result().load
            done()
    return [
        Goodput(contender.name, tuple(loads[contender.name, seed] for seed in range(scenario.seeds)))
        for contender in scenario.contenders
    ]


def largest_load(setting: Setting, contender: Contender, seed: int, near: float = 0.9) -> Found:
    """Search outwards from `near`, then bisect.

    Takes it that a load which meets the objective does so at all smaller ones.
    """
    low, high, width, met = 0, round(LARGEST / STEP), FIRST_WIDTH, None
    at = min(max(round(near / STEP), 1), high - 1)
    while high - low > 1:
        figures = play_if_good(setting.at_load(at * STEP), contender, seed)
        if figures is not None:
            low, met = at, figures
        else:
            high = at
        if low == 0:
            at = max(high - width, 1)
        elif high * STEP >= LARGEST:
            at = min(low + width, high - 1)
        else:
            at = (low + high) // 2
        width *= 2
    return Found(low * STEP, met)
