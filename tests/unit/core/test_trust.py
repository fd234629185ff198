"""What metrics and books say together: load of others, lies, standing still, suspension and the way back."""

from collections.abc import Callable

import pytest

from halffull.core.balance import Act, Change, Decision, Fleet, Reading, Settings, carried, observe, pressure, rebalance
from halffull.core.trust import WINDOW_S
from halffull.core.values import Signals

Told = Callable[[float], Reading]


def well(now: float, others: float = 0.0) -> Reading:
    """Four of our requests and some of others, each at 50 tokens a second."""
    rate = 50.0 * (4 + others)
    signals = Signals(
        running=4 + others,
        waiting=0,
        prompt_tokens=rate * now,
        generation_tokens=rate * now,
        token_seconds=(4 + others) * now,
    )
    return Reading(signals, in_flight=4, seen_tokens=round(2 * 200 * now))


def stuck(now: float) -> Reading:
    return Reading(Signals(running=3, waiting=2, prompt_tokens=7, generation_tokens=7), in_flight=5, seen_tokens=99)


def leaking(now: float) -> Reading:
    return Reading(Signals(running=3, waiting=0, prompt_tokens=7, generation_tokens=7), in_flight=0, seen_tokens=99)


def forgetful(now: float) -> Reading:
    return Reading(Signals(running=0, waiting=0, prompt_tokens=7, generation_tokens=7), in_flight=5, seen_tokens=99)


def frozen(now: float) -> Reading:
    """It works, but its metrics stand still."""
    return Reading(
        Signals(running=1, waiting=0, prompt_tokens=7, generation_tokens=7), in_flight=4, seen_tokens=round(400 * now)
    )


def modest(now: float) -> Reading:
    signals = well(now).signals
    assert signals is not None
    return Reading(Signals(running=0, waiting=0, prompt_tokens=signals.prompt_tokens, generation_tokens=signals.generation_tokens),
                   in_flight=20, seen_tokens=round(400 * now))  # fmt: skip


def boasting(now: float) -> Reading:
    signals = well(now).signals
    assert signals is not None
    return Reading(Signals(running=40, waiting=9, prompt_tokens=signals.prompt_tokens, generation_tokens=signals.generation_tokens),
                   in_flight=4, seen_tokens=round(400 * now))  # fmt: skip


def idle(now: float) -> Reading:
    return Reading(Signals(running=0, waiting=0, prompt_tokens=7, generation_tokens=7), in_flight=0, seen_tokens=99)


def rounds(
    state: Fleet, told: dict[str, Told], start: float = 0, seconds: float = 60, settings: Settings | None = None
) -> tuple[Fleet, Decision, list[tuple[float, Change]]]:
    changes = []
    for now in range(int(start), int(start + seconds) + 1, 5):
        state = observe(state, {name: tell(now) for name, tell in told.items()}, now)
        state, decision = rebalance(state, now, settings)
        changes += [(now, change) for change in decision.changes]
    return state, decision, changes


@pytest.mark.parametrize("bad", [stuck, leaking, forgetful])
def test_a_replica_that_stands_still_is_suspended_once_with_a_reason(bad: Told) -> None:
    _, decision, changes = rounds(Fleet(), {"a": well, "b": bad, "c": well}, seconds=55)

    assert list(decision.suspended) == ["b"]
    assert "no token for 30 s" in decision.suspended["b"]
    assert [(change.replica, change.act) for _, change in changes] == [("b", Act.SUSPENDED)]
    assert WINDOW_S <= changes[0][0] <= WINDOW_S + 5


@pytest.mark.parametrize("good", [well, idle, lambda now: well(now, others=5.0)])
def test_replicas_that_work_or_rest_are_left_alone(good: Told) -> None:
    _, decision, changes = rounds(Fleet(), {"a": good, "b": good}, seconds=600)

    assert (decision.suspended, decision.distrusted, changes) == ({}, {}, [])


def test_a_long_prefill_that_ends_within_the_window_is_no_standstill() -> None:
    def bursts(now: float) -> Reading:
        done = 1000 * (now // 25)
        return Reading(
            Signals(running=1, waiting=0, prompt_tokens=done, generation_tokens=done), in_flight=1, seen_tokens=0
        )

    assert rounds(Fleet(), {"a": well, "b": bursts}, seconds=300)[2] == []


def test_a_prefill_that_takes_long_is_given_its_time() -> None:
    def long(now: float) -> Reading:
        return Reading(
            Signals(running=1, waiting=0, prompt_tokens=7, generation_tokens=7),
            in_flight=1,
            seen_tokens=9,
            prefill_s=40,
        )

    _, _, changes = rounds(Fleet(), {"a": well, "b": long}, seconds=100)
    assert [(now, change.act) for now, change in changes] == [(80, Act.SUSPENDED)]


def test_at_most_half_of_a_fleet_is_suspended_those_down_anyway_included() -> None:
    _, decision, _ = rounds(Fleet(), {"a": stuck, "b": stuck, "c": stuck, "d": well})
    assert len(decision.suspended) == 2

    down = {"a": stuck, "b": lambda _: Reading(down=True), "c": lambda _: Reading(down=True), "d": well}
    assert rounds(Fleet(), down)[1].suspended == {}
    assert rounds(Fleet(), {"a": stuck})[1].suspended == {}


def test_a_suspended_replica_is_tried_again_later_and_later() -> None:
    _, _, changes = rounds(Fleet(), {"a": well, "b": stuck, "c": well}, seconds=1000)

    acts = [(change.act, now) for now, change in changes]
    assert [act for act, _ in acts] == [Act.SUSPENDED, Act.RESUMED] * (len(acts) // 2) + [Act.SUSPENDED] * (
        len(acts) % 2
    )
    rests = [back - out for (_, out), (_, back) in zip(acts[::2], acts[1::2], strict=False)]
    assert rests == [60, 120, 240]


def test_a_replica_that_works_again_stays() -> None:
    state, _, _ = rounds(Fleet(), {"a": well, "b": stuck})
    _, decision, changes = rounds(state, {"a": well, "b": lambda now: well(now - 64)}, start=65, seconds=600)

    assert decision.suspended == {}
    assert [change.act for _, change in changes] == [Act.RESUMED]


def test_a_new_process_is_tried_at_once() -> None:
    state, _, _ = rounds(Fleet(), {"a": well, "b": stuck}, seconds=45)

    def fresh(_: float) -> Reading:
        return Reading(Signals(running=0, waiting=0, prompt_tokens=0, generation_tokens=0), in_flight=0, seen_tokens=99)

    _, _, changes = rounds(state, {"a": well, "b": fresh}, start=50, seconds=5)
    assert [(now, change.act) for now, change in changes] == [(50, Act.RESUMED)]


def test_a_restarted_rebalancer_keeps_a_suspension_for_its_time() -> None:
    _, decision, changes = rounds(carried({}, {"b": "stuck"}), {"a": well, "b": idle}, seconds=55)
    assert decision.suspended == {"b": "stuck"}
    assert changes == []


@pytest.mark.parametrize("lie", [frozen, modest, boasting])
def test_metrics_that_contradict_the_books_are_not_believed(lie: Told) -> None:
    state, decision, changes = rounds(Fleet(), {"a": well, "b": lie, "c": well}, seconds=300)

    assert list(decision.distrusted) == ["b"]
    assert (decision.suspended, decision.foreign) == ({}, {})
    assert decision.weights == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert decision.speeds["b"] is None
    assert [change.act for _, change in changes] == [Act.DISTRUSTED]

    _, decision, changes = rounds(state, {"a": well, "b": well, "c": well}, start=305, seconds=100)
    assert decision.distrusted == {}
    assert [change.act for _, change in changes] == [Act.TRUSTED]


def test_liars_are_suspended_where_stale_metrics_exclude_a_replica() -> None:
    _, decision, _ = rounds(Fleet(), {"a": well, "b": frozen, "c": well}, settings=Settings(suspend_liars=True))

    assert list(decision.suspended) == ["b"]


def test_load_of_others_is_told_and_lowers_the_weight_once() -> None:
    told: dict[str, Told] = {"a": well, "b": lambda now: well(now, others=4.0), "c": well, "d": well}
    _, decision, changes = rounds(Fleet(), told, seconds=600)

    assert decision.foreign == {"b": 4.0}
    assert decision.weights["b"] == pytest.approx(1 - 4 / 5, abs=0.01)  # of five requests each, four are there already
    assert [change.reason for _, change in changes] == ["others take 80% of it: weight 1 -> 0.2"]


def test_load_of_others_that_goes_gives_the_weight_back() -> None:
    state, _, _ = rounds(Fleet(), {"a": well, "b": lambda now: well(now, others=4.0)}, seconds=120)
    _, decision, _ = rounds(state, {"a": well, "b": well}, start=125, seconds=400)

    assert decision.weights == {"a": 1.0, "b": 1.0}


def test_nothing_is_said_of_others_where_a_router_did_not_answer() -> None:
    def partly(now: float) -> Reading:
        return Reading(well(now, others=4.0).signals, in_flight=None)

    _, decision, changes = rounds(Fleet(), {"a": well, "b": partly}, seconds=300)
    assert (decision.foreign, decision.suspended, changes) == ({}, {}, [])


def test_pressure_is_memory_in_use_and_what_waits() -> None:
    assert pressure(None) is None
    assert pressure(Signals(running=3)) is None
    assert pressure(Signals(running=3, waiting=0, kv_usage=0.4)) == 0.4
    assert pressure(Signals(running=4, waiting=6, kv_usage=0.9)) == 2.5
    assert pressure(Signals(waiting=2)) == 3
