"""The largest load that meets the objective: runs that cannot meet it any more are cut short, with the same verdict."""

import pytest

from halffull.api.scenario import Scenario
from halffull.sim.goodput import STEP, largest_load
from halffull.sim.measure import play, play_if_good
from halffull.sim.setting import Setting, setting

CONTENDER = {"name": "sal", "scheduling": {"policy": "sal"}}


def small(objective: dict[str, float]) -> Setting:
    scenario = {
        "workload": "convP",
        "requests": 400,
        "engines": {"count": 2},
        "objective": objective,
        "contenders": [CONTENDER],
    }
    return setting(Scenario.model_validate(scenario))


@pytest.mark.parametrize("objective", [{"ttftSeconds": 0.5, "share": 0.95}, {"slowdown": 3.0, "share": 0.8}])
def test_a_run_that_is_cut_short_is_one_that_misses_the_objective(objective: dict[str, float]) -> None:
    plan = small(objective)
    contender = plan.scenario.contenders[0]
    verdicts = set()
    for load in (0.4, 0.7, 1.0, 2.0):
        whole = play(plan.at_load(load), contender, 0).figures
        good = whole.good >= objective["share"]
        verdicts.add(good)

        assert play_if_good(plan.at_load(load), contender, 0) == (whole if good else None)
    assert verdicts == {True, False}


def test_the_largest_load_meets_the_objective_and_the_next_does_not() -> None:
    plan = small({"ttftSeconds": 0.5, "share": 0.95})
    contender = plan.scenario.contenders[0]
    found = largest_load(plan, contender, 0)

    assert found.figures == play(plan.at_load(found.load), contender, 0).figures
    assert found.figures.good >= 0.95
    assert play(plan.at_load(found.load + STEP), contender, 0).figures.good < 0.95
