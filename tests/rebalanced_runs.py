"""Simulated runs with the operator's rebalancer, for its tests in tests/unit/sim and tests/differential."""

from typing import Any

from halffull.api.scenario import Contender, Scenario
from halffull.sim.setting import setting
from halffull.sim.simulation import Simulation


def played(
    policy: str, seed: int, engines: dict[str, Any], weights: tuple[float, ...] = (), **fields: Any
) -> Simulation:
    """Play a run: with an oracle's weights, or with the rebalancer where there are none."""
    routers = {} if weights else {"rebalanceSeconds": 5}
    document = {"requests": 16_000, "engines": {"count": 4, **engines}, "routers": routers, **fields}
    contender = Contender.model_validate({"name": policy, "scheduling": {"policy": policy}})
    simulation = Simulation(setting(Scenario.model_validate(document)), contender, seed)
    for engine, weight in zip(simulation.engines, weights, strict=False):
        for page in engine.pages:
            page.replica.weight = weight
    simulation.run()
    return simulation
