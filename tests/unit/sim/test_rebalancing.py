"""The operator's rebalancer in simulated runs: steady after a step, idle on a balanced fleet.

Against an oracle: tests/differential.
"""

from collections import Counter

import pytest

from halffull.core.balance import Act
from rebalanced_runs import played


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


def test_nothing_is_done_to_a_balanced_fleet_in_eight_hours_of_few_requests() -> None:
    simulation = played("round-robin", 1, {"count": 2}, requests=3400, rate=10_000 / 86_400)

    assert simulation.now > 28_000
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
