"""The operator's rebalancer in simulated runs: as good as an oracle, steady after a step, idle on a balanced fleet."""

from collections import Counter
from statistics import median
from typing import Any

import pytest

from halffull.api.scenario import Contender, Scenario
from halffull.core.balance import Act
from halffull.sim.measure import percentile
from halffull.sim.setting import setting
from halffull.sim.simulation import Simulation

SETTLED_S = 400
"""seconds after which the rebalancer has found what there is to find, and what piled up until then is served"""
SLOW = {"speeds": [1, 1, 1, 1 / 3]}
SHARED = {"others": [{"replica": 3, "load": 0.3}]}
SMALL = {"kvParts": [1, 1, 1, 0.5]}


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
    fields = {"load": load, "requests": 24_000}
    ratios = [
        p99(played(policy, seed, engines, **fields)) / p99(played(policy, seed, engines, weights, **fields))
        for seed in (0, 1, 2)
    ]

    assert median(ratios) <= 1.10


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_step_change_is_answered_at_once_and_no_more(seed: int) -> None:
    slows = {"slowdowns": [{"replica": 1, "factor": 2.5, "fromSeconds": 100}]}
    changes = played("round-robin", seed, slows, load=0.5).rebalancing.changes

    assert {change.replica for _, change in changes} == {"1"}
    assert all(100 < at < 300 for at, _ in changes)
    weights = [change.after for _, change in changes]
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] == pytest.approx(0.4, rel=0.15)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_long_prompts_and_short_answers_do_not_make_a_slow_replica_look_slower(seed: int) -> None:
    """Most of the time nothing decodes: what an engine does then is not in the time between tokens."""
    code = {"workload": "code", "arrivals": "poisson", "rate": 5.3, "requests": 2400}
    changes = played("round-robin", seed, {"count": 3, "speeds": [1, 1, 0.5]}, **code).rebalancing.changes

    assert [change.replica for _, change in changes] == ["2"]
    assert changes[0][1].after == pytest.approx(0.5, rel=0.2)


def test_actions_are_few_whatever_happens() -> None:
    trouble = {
        "speeds": [1, 0.5, 0.8, 0.3],
        "slowdowns": [{"replica": 0, "factor": 3, "fromSeconds": 60 * n, "forSeconds": 30} for n in range(1, 8)],
        "others": [{"replica": 2, "load": 0.2}],
    }
    changes = played("least-requests", 2, trouble, load=0.5).rebalancing.changes

    assert changes
    assert max(Counter((change.replica, at // 60) for at, change in changes).values()) <= 2
    assert {change.act for _, change in changes} == {Act.REBALANCED}


def test_nothing_is_done_to_a_balanced_fleet_in_a_day_of_few_requests() -> None:
    simulation = played("round-robin", 1, {"count": 2}, requests=10_000, rate=10_000 / 86_400)

    assert simulation.now > 85_000
    assert simulation.rebalancing.changes == []


def test_a_replica_whose_engine_stands_still_is_suspended_and_its_requests_are_moved() -> None:
    stands = {"slowdowns": [{"replica": 2, "factor": 1000, "fromSeconds": 60, "forSeconds": 200}]}
    simulation = played("llumnix", 1, stands, load=0.4, requests=5000)

    acts = [
        (change.replica, change.act) for _, change in simulation.rebalancing.changes if change.act != Act.REBALANCED
    ]
    assert acts[:2] == [("2", Act.SUSPENDED), ("2", Act.RESUMED)]
    assert {replica for replica, _ in acts} == {"2"}
    assert all(demand.ended is not None for demand in simulation.demands)
