"""The rebalancer's rules one by one: evidence, idle time, restarts, marks, hysteresis, estimates instead of counters."""

import random

import pytest

from halffull.core.balance import Act, Fleet, Mark, Reading, Settings, carried, observe, rebalance
from halffull.core.values import Signals


def working(now: float, speed: float, running: float = 8, *, exact: bool = True) -> Reading:
    return Reading(
        Signals(
            running=running,
            prompt_tokens=1000 * speed * now,
            generation_tokens=100 * speed * now,
            token_seconds=8.0 * now if exact else None,
        )
    )


def rounds(state: Fleet, readings, start: float = 0, seconds: float = 60):
    decision, changes = None, []
    for now in range(int(start), int(start + seconds) + 1, 5):
        state = observe(state, {name: read(now) for name, read in readings.items()}, now)
        state, decision = rebalance(state, now)
        changes += decision.changes
    return state, decision, changes


def steady(speed: float):
    return lambda now: working(now, speed)


def test_the_slow_replica_gets_its_share_and_a_reason():
    _, decision, changes = rounds(Fleet(), {"a": steady(1), "b": steady(0.5)})

    assert decision.weights == {"a": 1.0, "b": 0.5}
    assert decision.speeds == {"a": 1.0, "b": 0.5}
    assert [(change.replica, change.before, change.after) for change in changes] == [("b", 1.0, 0.5)]
    assert changes[0].reason == "runs at 50% of the fastest replica's speed: weight 1 -> 0.5"


def test_thirty_seconds_of_work_are_needed():
    _, decision, _ = rounds(Fleet(), {"a": steady(1), "b": steady(0.5)}, seconds=25)

    assert decision.weights == {"a": 1.0, "b": 1.0}
    assert decision.speeds == {"a": None, "b": None}


def test_an_idle_replica_keeps_its_weight():
    idle = Reading(Signals(running=0, prompt_tokens=5, generation_tokens=5))

    _, decision, changes = rounds(carried({"b": 0.4}), {"a": steady(1), "b": lambda _: idle, "c": steady(1)})

    assert decision.weights == {"a": 1.0, "b": 0.4, "c": 1.0}
    assert decision.speeds["b"] is None
    assert changes == []


def test_idle_time_does_not_make_slow():
    def half_idle(now):
        busy_until_now = 60 * (now // 120) + min(now % 120, 60)
        return working(busy_until_now, 1, running=8 if now % 120 < 60 else 0)

    _, decision, changes = rounds(Fleet(), {"a": steady(1), "b": half_idle}, seconds=400)

    assert decision.weights == {"a": 1.0, "b": 1.0}
    assert changes == []


def test_small_differences_change_nothing():
    _, decision, changes = rounds(Fleet(), {"a": steady(1), "b": steady(0.86)}, seconds=200)

    assert decision.weights["b"] == 1.0
    assert decision.speeds["b"] == 0.86
    assert changes == []


@pytest.mark.parametrize(("exact", "weight"), [(True, 0.8), (False, 1.0)])
def test_coarse_evidence_needs_a_larger_difference(exact, weight):
    def slower(now):
        return working(now, 0.8, exact=exact)

    _, decision, _ = rounds(Fleet(), {"a": steady(1), "b": slower}, seconds=200)

    assert decision.weights["b"] == weight


def test_a_nearly_fast_replica_returns_to_neutral():
    _, decision, _ = rounds(carried({"a": 1.0, "b": 0.5}), {"a": steady(1), "b": steady(0.92)})

    assert decision.weights["b"] == 1.0


def test_weights_end_at_a_tenth():
    _, decision, _ = rounds(Fleet(), {"a": steady(1), "b": steady(0.01)})

    assert decision.weights["b"] == 0.1


def test_a_replica_that_stands_still_is_not_for_weights():
    _, decision, changes = rounds(Fleet(), {"a": steady(1), "b": steady(0), "c": steady(1)})

    assert decision.weights["b"] == 1.0
    assert changes == []


def test_a_restarted_engine_starts_without_evidence():
    state, decision, _ = rounds(Fleet(), {"a": steady(1), "b": steady(0.5)})
    assert decision.speeds["b"] == 0.5

    state = observe(state, {"a": working(65, 1), "b": working(1, 1)}, 65)
    _, decision = rebalance(state, 65)

    assert decision.speeds["b"] is None
    assert decision.weights["b"] == 0.5


def test_the_only_replica_is_the_fastest():
    _, decision, _ = rounds(carried({"a": 0.3}), {"a": steady(1)})

    assert decision.weights == {"a": 1.0}


def test_one_replica_alone_with_evidence_proves_nothing():
    silent = Reading()

    _, decision, _ = rounds(carried({"a": 0.5, "b": 1.0}), {"a": steady(1), "b": lambda _: silent})

    assert decision.weights == {"a": 0.5, "b": 1.0}
    assert decision.marks == {"a": Mark.FRESH, "b": Mark.NONE}


def test_a_replica_that_cannot_be_read_is_marked_and_left_alone():
    state, _, _ = rounds(Fleet(), {"a": steady(1), "b": steady(0.5)}, seconds=25)
    for now in (30, 35, 40, 45):
        state = observe(state, {"a": working(now, 1), "b": Reading()}, now)
        state, decision = rebalance(state, now)

    assert decision.marks == {"a": Mark.FRESH, "b": Mark.STALE}
    assert decision.weights == {"a": 1.0, "b": 1.0}


def test_a_replica_that_left_is_forgotten():
    state, _, _ = rounds(Fleet(), {"a": steady(1), "b": steady(0.5)})
    state = observe(state, {"b": working(65, 0.5)}, 65)
    state, decision = rebalance(state, 100)

    assert list(decision.weights) == ["b"]
    assert list(state.pages) == ["b"]


def test_changes_of_one_replica_are_apart():
    state, _, changes = rounds(Fleet(), {"a": steady(1), "b": steady(0.5)})
    done = 0.5 * 60

    def slower(now):
        progress = done + 0.1 * (now - 60)
        tokens = {"prompt_tokens": 1000 * progress, "generation_tokens": 100 * progress}
        return Reading(Signals(running=8, token_seconds=8.0 * now, **tokens))

    _, decision, changes = rounds(state, {"a": steady(1), "b": slower}, start=65, seconds=120)

    assert decision.weights["b"] == pytest.approx(0.1, abs=0.02)
    assert len(changes) <= 3


def test_prefixes_found_in_the_cache_are_no_work():
    def cached(now):
        return Reading(
            Signals(running=8, prompt_tokens=3000 * now, prefix_hits=2000 * now, generation_tokens=100 * now)
        )

    _, decision, _ = rounds(Fleet(), {"a": steady(1), "b": cached})

    assert decision.speeds == {"a": 1.0, "b": 1.0}


def test_engines_without_counters_are_compared_by_what_the_routers_learned():
    def learned(rate):
        return lambda _: Reading(Signals(running=8), in_flight=8, prefill_rate=rate)

    _, decision, _ = rounds(Fleet(), {"a": learned(9000), "b": learned(3000)})

    assert decision.weights == {"a": 1.0, "b": 0.33}


def test_estimates_are_not_compared_with_counters():
    estimated = Reading(Signals(running=8), in_flight=8, prefill_rate=1e9)

    _, decision, _ = rounds(Fleet(), {"a": steady(1), "b": lambda _: estimated, "c": steady(0.5)})

    assert decision.speeds == {"a": 1.0, "b": None, "c": 0.5}


def test_settings_are_the_callers():
    state = Fleet()
    for now in (0, 5, 10):
        state = observe(state, {"a": working(now, 1), "b": working(now, 0.5)}, now)

    _, decision = rebalance(state, 10, Settings(evidence_s=9, lowest=0.6))

    assert decision.weights == {"a": 1.0, "b": 0.6}


def test_few_and_uneven_samples_of_a_balanced_fleet_change_nothing():
    """Now and then five seconds of work, some of it on short prompts: by chance one replica had more of these lately."""
    rng, made = random.Random(3), {"a": [0.0, 0.0], "b": [0.0, 0.0]}
    state, changes = Fleet(), []
    for now in range(0, 20_000, 5):
        readings = {}
        for name, counters in made.items():
            if rng.random() < 0.2:
                counters[0] += 5000 * rng.choice((0.3, 1, 1, 1, 1))
                counters[1] += 40
            readings[name] = Reading(
                Signals(running=0, prompt_tokens=counters[0], generation_tokens=counters[1], token_seconds=counters[1])
            )
        state, decision = rebalance(observe(state, readings, now), now)
        changes += decision.changes

    assert changes == []


def test_counters_that_lied_for_a_while_do_not_make_a_replica_look_fast():
    def lying(now: float) -> Reading:
        told = Signals(running=8, prompt_tokens=7, generation_tokens=7)
        return Reading(told) if 200 <= now < 220 else working(now, 1)

    _, _, changes = rounds(Fleet(), {"a": steady(1), "b": lying}, seconds=600)

    assert changes == []


def test_an_engine_that_comes_back_after_silence_as_another_process_is_tried_at_once_and_without_old_evidence():
    """As every restart looks: for a while nothing answers."""

    def b(now: float) -> Reading:
        if now < 100:
            return working(now, 0.5)
        if now < 140:
            return Reading(
                Signals(running=8, prompt_tokens=50_000, generation_tokens=5_000), in_flight=8, seen_tokens=9
            )
        return Reading(in_flight=0, seen_tokens=9) if now < 160 else working(now - 159, 1)

    def a(now: float) -> Reading:
        return working(now, 1)

    state, decision, _ = rounds(Fleet(), {"a": a, "b": b}, seconds=155)
    assert list(decision.suspended) == ["b"]

    _, decision, changes = rounds(state, {"a": a, "b": b}, start=160, seconds=0)
    assert decision.suspended == {}
    assert [(change.replica, change.act) for change in changes] == [("b", Act.RESUMED)]
    assert decision.speeds["b"] is None, "the evidence was about another process"
