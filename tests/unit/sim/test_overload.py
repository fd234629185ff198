"""After an overload: what comes from five seconds after its end is taken, and answered as soon as before; in the simulator."""

from dataclasses import replace
from random import Random

import pytest

from halffull.core.gate import GATES
from halffull.core.limits import Limits
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES
from halffull.sim.demand import Demand
from halffull.sim.profiles import PROFILES
from halffull.sim.saturation import saturated_throughput
from halffull.sim.simulation import Simulation
from halffull.sim.trace import Call
from simulated_runs import contender, setting

PROFILE = replace(PROFILES["a100"], kv_tokens=60_000, max_sequences=64, max_batched_tokens=2048)
LENGTH_S = 60.0
"""of each phase: 0.7, 3 and again 0.7 of what two replicas can do"""


def overload(seed: int, answers: tuple[int, int], callers: int) -> tuple[list[Demand], list[Demand]]:
    """Return the requests before the overload, and those from five seconds after it."""
    rng = Random(seed)
    calls = [Call(0.0, rng.randrange(500, 3500), rng.randrange(*answers)) for _ in range(4000)]
    capacity = 2 * saturated_throughput(calls[:2000], PROFILE)
    times, now = [], 0.0
    for phase, load in enumerate((0.7, 3.0, 0.7), 1):
        while now < phase * LENGTH_S:
            now += rng.expovariate(load * capacity)
            times.append(now)
    clients = {"streamed": 0.8, "callers": callers}
    run = setting(calls[: len(times)], capacity, PROFILE, engines={"count": 2}, clients=clients)
    simulation = Simulation(run, contender("halffull"), seed)
    entry, (dispatcher,) = POLICIES["halffull"], simulation.dispatchers
    dispatcher.configure(entry.make(), ORDERINGS[entry.ordering].make(), GATES[entry.gate].make(), Limits(), 0.0)
    for demand, at in zip(simulation.demands, times, strict=True):
        demand.arrived = at
    simulation.run()
    assert sum(bool(demand.failure) for demand in simulation.demands) > 500, "there was no overload"
    before = [demand for demand in simulation.demands if 10 < demand.arrived < LENGTH_S]
    return before, [demand for demand in simulation.demands if demand.arrived > 2 * LENGTH_S + 5]


def p99(demands: list[Demand]) -> float:
    return sorted(demand.first - demand.arrived for demand in demands)[int(0.99 * len(demands))]


@pytest.mark.parametrize("callers", [1, 40])
@pytest.mark.parametrize("answers", [(10, 40), (200, 400)], ids=["compute binds", "memory binds"])
def test_what_comes_after_an_overload_is_answered_as_before(answers: tuple[int, int], callers: int) -> None:
    runs = [overload(seed, answers, callers) for seed in range(1, 4)]
    before, after = ([demand for run in runs for demand in run[part]] for part in (0, 1))

    assert not [demand for demand in after if demand.failure]
    assert p99(after) < 1.5 * p99(before)
