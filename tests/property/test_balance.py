"""The rebalancer on modelled fleets and on arbitrary readings: bounds, no oscillation, the slow replica found."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_fleet import A100, H100, SMALL, Engine, FakeFleet
from halffull.core.balance import Fleet, Mark, Reading, Settings, observe, rebalance
from halffull.core.values import Signals


def run(fleet: FakeFleet, seconds: float):
    """Rebalance every 5 s; return the last decision and all changes."""
    state, changes, decision = Fleet(), [], None
    weights = dict.fromkeys(fleet.engines, 1.0)
    while fleet.now < seconds:
        state = observe(state, fleet.run(5, weights), fleet.now)
        state, decision = rebalance(state, fleet.now)
        weights = dict(decision.weights)
        changes += [(fleet.now, change) for change in decision.changes]
    return decision, changes


@pytest.mark.parametrize("costs", [A100, H100, SMALL], ids=["a100", "h100", "small"])
@pytest.mark.parametrize("shortest", [False, True], ids=["by-weight", "shortest-line"])
@pytest.mark.parametrize(("load", "exact"), [(0.05, True), (0.4, True), (0.8, True), (0.4, False)])
def test_a_replica_three_times_slower_is_found(costs, shortest, load, exact):
    engines = {f"r{index}": Engine(costs, tells_token_seconds=exact) for index in range(4)}
    engines["r2"].speed = 1 / 3
    capacity = 4.5 if costs is A100 else 8.0
    fleet = FakeFleet(engines, rate=load * capacity * 3.33, shortest=shortest)

    decision, changes = run(fleet, 300)

    assert decision.weights["r2"] == pytest.approx(1 / 3, rel=0.2 if exact else 0.3)
    assert {name: weight for name, weight in decision.weights.items() if name != "r2"} == {"r0": 1, "r1": 1, "r3": 1}
    assert len(changes) <= 6


@pytest.mark.parametrize("shortest", [False, True], ids=["by-weight", "shortest-line"])
@pytest.mark.parametrize("rate", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bursts_do_not_make_a_slow_replica_look_slower(shortest, rate, seed):
    engines = {f"r{index}": Engine(A100) for index in range(2)}
    engines["r1"].speed = 0.5
    fleet = FakeFleet(engines, rate=rate, shortest=shortest, burst=8, seed=seed)

    decision, _ = run(fleet, 400)

    assert decision.weights == {"r0": 1.0, "r1": pytest.approx(0.5, rel=0.25)}


@pytest.mark.parametrize("shortest", [False, True], ids=["by-weight", "shortest-line"])
@pytest.mark.parametrize("rate", [2.0, 12.0])
def test_nothing_is_done_to_a_balanced_fleet(shortest, rate):
    fleet = FakeFleet({f"r{index}": Engine(A100) for index in range(4)}, rate=rate, shortest=shortest)

    decision, changes = run(fleet, 900)

    assert changes == []
    assert set(decision.weights.values()) == {1.0}


def test_a_replica_that_recovers_gets_its_weight_back():
    engines = {f"r{index}": Engine(A100) for index in range(3)}
    engines["r1"].speed = 0.4
    fleet = FakeFleet(engines, rate=8, shortest=True)
    state, weights, seen = Fleet(), dict.fromkeys(engines, 1.0), []
    while fleet.now < 600:
        engines["r1"].speed = 0.4 if fleet.now < 200 else 1.0
        state = observe(state, fleet.run(5, weights), fleet.now)
        state, decision = rebalance(state, fleet.now)
        weights = dict(decision.weights)
        seen.append(weights["r1"])

    assert min(seen) == pytest.approx(0.4, rel=0.2)
    assert seen[-1] == 1.0


NUMBERS = st.one_of(st.none(), st.floats(0, 1e12))
SIGNALS = st.one_of(
    st.none(),
    st.builds(
        Signals,
        running=NUMBERS,
        waiting=NUMBERS,
        kv_usage=st.one_of(st.none(), st.floats(0, 1)),
        kv_tokens=NUMBERS,
        prompt_tokens=NUMBERS,
        generation_tokens=NUMBERS,
        prefix_hits=NUMBERS,
        token_seconds=NUMBERS,
    ),
)
READINGS = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(Reading, SIGNALS, st.integers(0, 1000), st.one_of(st.none(), st.floats(0, 1e9))),
)


@given(rounds=st.lists(st.tuples(st.floats(0, 200), READINGS), max_size=30))
def test_weights_stay_within_bounds_whatever_is_read(rounds):
    state, now = Fleet(), 0.0
    for passed, readings in rounds:
        now += passed
        state = observe(state, readings, now)
        state, decision = rebalance(state, now)

        assert set(decision.weights) == set(readings)
        assert all(0.1 <= weight <= 1 for weight in decision.weights.values())
        assert all(decision.marks[change.replica] is Mark.FRESH for change in decision.changes)


@settings(max_examples=50)
@given(
    rates=st.lists(st.tuples(st.floats(0, 1e5), st.floats(1, 1e4), st.integers(2, 200)), min_size=1, max_size=6),
    every=st.floats(1, 20),
)
def test_constant_input_is_answered_once(rates, every):
    """Each replica works at a constant rate: at most one change each, and none after the first settles."""
    state, changes = Fleet(), []
    for tick in range(100):
        now = tick * every
        readings = {
            str(index): Reading(
                Signals(running=float(running), prompt_tokens=prompt * now, generation_tokens=tokens * now)
            )
            for index, (prompt, tokens, running) in enumerate(rates)
        }
        state = observe(state, readings, now)
        state, decision = rebalance(state, now, Settings())
        changes += [change.replica for change in decision.changes]

    assert len(changes) == len(set(changes))
