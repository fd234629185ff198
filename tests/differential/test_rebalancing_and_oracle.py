"""The operator's rebalancer finds weights that serve a fleet of unequals as well as those of who knows how it is."""

from statistics import median
from typing import Any

import pytest

from halffull.sim.measure import percentile
from halffull.sim.simulation import Simulation
from rebalanced_runs import played

SETTLED_S = 400
"""seconds after which the rebalancer has found what there is to find, and what piled up until then is served"""
SLOW = {"speeds": [1, 1, 1, 1 / 3]}
SHARED = {"others": [{"replica": 3, "load": 0.3}]}
SMALL = {"kvParts": [1, 1, 1, 0.5]}


def p99(simulation: Simulation) -> float:
    waits = sorted((d.first or 0.0) - d.arrived for d in simulation.demands if d.arrived > SETTLED_S)
    return percentile(waits, 0.99)


@pytest.mark.parametrize(
    ("policy", "load", "engines", "weights"),
    [
        ("least-requests", 0.62, SLOW, (1, 1, 1, 1 / 3)),
        ("round-robin", 0.5, SLOW, (1, 1, 1, 1 / 3)),
        ("round-robin", 0.62, SLOW, (1, 1, 1, 1 / 3)),
        ("round-robin", 0.6, SHARED, (1, 1, 1, 0.7)),
        ("sal", 0.7, SMALL, (1, 1, 1, 1)),
    ],
    ids=["slow, least-requests", "slow, round-robin", "slow, round-robin, busy", "30 % of others", "half the KV"],
)
def test_a_fleet_of_unequals_does_as_well_as_with_an_oracle(
    policy: str, load: float, engines: dict[str, Any], weights: tuple[float, ...]
) -> None:
    ratios = [
        p99(played(policy, seed, engines, load=load)) / p99(played(policy, seed, engines, weights, load=load))
        for seed in (0, 1, 2)
    ]

    assert median(ratios) <= 1.10
