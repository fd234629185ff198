"""Yardsticks: the exact optimum is one, no scheduler beats it where its assumptions hold, and an oracle knows lengths."""

import random
from itertools import permutations, product
from math import log

import pytest

from halffull.core.values import Request
from halffull.sim.optimum import MOST_REQUESTS, distances, optimum
from halffull.sim.simulation import Simulation
from halffull.sim.trace import Call
from simulated_runs import SERVER, contender, play, setting


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_is_the_best_of_all_schedules(seed: int) -> None:
    rng = random.Random(seed)
    jobs = [(rng.random(), rng.expovariate(1.0)) for _ in range(5)]
    ends, flows = [], []
    for machines in product(range(2), repeat=5):
        for order in permutations(range(5)):
            free, flow = [0.0, 0.0], 0.0
            for job in order:
                arrived, seconds = jobs[job]
                free[machines[job]] = max(free[machines[job]], arrived) + seconds
                flow += free[machines[job]] - arrived
            ends.append(max(free) - min(jobs)[0])
            flows.append(flow / 5)

    best = optimum(jobs, 2)
    assert best.makespan == pytest.approx(min(ends))
    assert best.mean_flow == pytest.approx(min(flows))


def test_the_optimum_of_many_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 9"):
        optimum([(0.0, 1.0)] * (MOST_REQUESTS + 1), 2)


def test_no_scheduler_beats_the_optimum_and_better_ones_come_nearer() -> None:
    rng = random.Random(1)
    calls = [Call(0.0, round(1000 * rng.expovariate(1.0)) + 1, 1) for _ in range(7 * 40)]
    schedulers = [contender(name) for name in ("random", "least-requests", "sal")]
    run = setting(calls, 6.0, SERVER, engines={"count": 3}, seeds=40, contenders=[c.dump() for c in schedulers])
    found = distances(run, 7, lambda: None)
    assert [each.contender for each in found] == ["random", "least-requests", "sal"]
    assert all(each.makespan >= 1 and each.mean_flow >= 1 for each in found)
    assert log(found[2].mean_flow) < 0.7 * log(found[1].mean_flow) < 0.7 * log(found[0].mean_flow)
    with pytest.raises(ValueError, match="too few"):
        distances(run, 8, lambda: None)


def test_an_oracle_knows_how_long_answers_will_be() -> None:
    """Answers of 400 and of 10 tokens whose requests look alike."""
    rng = random.Random(3)
    calls = [Call(0.0, 200, rng.choice((10, 400))) for _ in range(300)]
    run = setting(calls, 30.0, engines={"count": 1, "maxSequences": 4})
    limits = {"limit": {"maxInFlight": 4}, "srpt": {"kappa": 100, "patienceSeconds": 60}}
    guess = contender("sal", "srpt", "limit", parameters=limits)
    oracle = guess.model_copy(update={"bound": "oracle"})
    left = Simulation(run, oracle, 1).dispatchers[0].books.outputs.left
    assert [left(Request(str(number), 0.0, 200)) for number in range(3)] == [
        demand.output_tokens for demand in run.demands(1)[:3]
    ]
    assert left(Request("0", 0.0, 200), so_far=4) == run.demands(1)[0].output_tokens - 4

    def mean_s(which) -> float:
        demands = play(run, which).demands
        return sum(demand.ended - demand.arrived for demand in demands) / len(demands)

    assert mean_s(oracle) < 0.9 * mean_s(guess)
