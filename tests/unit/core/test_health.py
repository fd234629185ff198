"""When a replica is paused, taken out, suspected, cleared and tried again; and the budget of re-sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halffull.core.budget import Budget
from halffull.core.health import FAILURES_OUT, OUT_LAST_S, PAUSE_LAST_S, PAUSE_MOST_S, SILENCE_FLOOR_S, Health, Verdict

TICK = 0.05


def let_pass(
    health: Health, start: float, seconds: float, *, every: float | None = None, prefill_s: float = 0.0
) -> tuple[float, Verdict | None]:
    """Tick, hearing a byte `every` so many seconds; return the time and the last change of verdict."""
    last, change, now = start, None, start
    for tick in range(int(seconds / TICK)):
        now = start + (tick + 1) * TICK
        if every is not None and now - last >= every:
            health.heard, last = True, now
        change = health.listen(now, prefill_s, streams=True) or change
    return now, change


def test_a_refusal_pauses_for_as_long_as_the_engine_says_or_longer_each_time() -> None:
    health = Health()
    pauses = []
    for _ in range(10):
        health.refused(100.0, 0.0)
        pauses.append(health.paused_until - 100.0)
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]
    assert pauses[-1] == PAUSE_LAST_S
    health.refused(100.0, 30.0)

    assert not health.takes(129.0)
    assert health.takes(130.0)
    health.refused(100.0, 999_999.0)
    assert health.takes(100.0 + PAUSE_MOST_S), "it is asked again, whatever it says"


def test_failures_in_a_row_are_too_many_and_a_success_forgets_them() -> None:
    health = Health()
    assert [health.failed(0.0) for _ in range(FAILURES_OUT)] == [False] * (FAILURES_OUT - 1) + [True]
    health.succeeded()

    assert not health.failed(0.0)


def test_what_is_out_comes_back_by_a_trial_with_one_request_later_each_time() -> None:
    health, rests = Health(), []
    for _ in range(9):
        health.take_out(0.0)
        rests.append(health.out_until)
        health.readmit(1.0)
        assert health.takes(1.0)
        health.tried = "a request"
        assert not health.takes(1.0)
        health.tried = None
        assert health.failed(1.0), "a trial has one chance"
    assert rests[:3] == [1.0, 2.0, 4.0]
    assert rests[-1] == OUT_LAST_S
    assert health.succeeded()
    assert health.takes(100.0)
    health.take_out(0.0)
    assert health.out_until == 1.0


def test_silence_of_all_streams_is_suspected_and_a_byte_clears_it() -> None:
    health = Health()
    health.listen(0.0, 0.0, streams=False)
    now, change = let_pass(health, 0.0, SILENCE_FLOOR_S + 1)
    assert change is Verdict.SUSPECT
    assert not health.takes(now)
    health.heard = True

    assert health.listen(now, 0.0, streams=True) is Verdict.WELL
    assert health.takes(now)


@pytest.mark.parametrize("every", [0.05, 0.5, 2.5])
def test_what_is_heard_now_and_then_is_not_suspected(every: float) -> None:
    health = Health()
    health.listen(0.0, 0.0, streams=False)

    assert let_pass(health, 0.0, 60.0, every=every)[1] is None


def test_a_long_prefill_and_plain_answers_are_left_alone() -> None:
    health = Health()
    health.listen(0.0, 0.0, streams=False)
    assert let_pass(health, 0.0, 19.0, prefill_s=10.0)[1] is None
    plain = Health()

    assert [plain.listen(second, 0.0, streams=False) for second in range(1000)] == [None] * 1000


def test_a_slow_engine_is_given_longer_rests_once_known() -> None:
    health = Health()
    health.listen(0.0, 0.0, streams=False)
    now, _ = let_pass(health, 0.0, 30.0, every=2.0)

    assert let_pass(health, now, 6.0)[1] is None
    assert let_pass(health, now + 6.0, 4.0)[1] is Verdict.SUSPECT


def test_one_that_is_out_may_still_be_heard_or_silent() -> None:
    health = Health()
    health.listen(0.0, 0.0, streams=False)
    health.take_out(0.0)
    now, _ = let_pass(health, 0.0, SILENCE_FLOOR_S + 1, every=0.5)
    assert not health.silent
    assert let_pass(health, now, SILENCE_FLOOR_S + 1)[1] is None
    assert health.silent
    assert health.verdict is Verdict.OUT


def test_a_cleared_suspicion_doubles_the_patience() -> None:
    health = Health()
    health.listen(0.0, 0.0, streams=False)
    now, change = let_pass(health, 0.0, 4.0)
    assert change is Verdict.SUSPECT
    health.cleared(now)

    assert let_pass(health, now, 6.0)[1] is None
    assert let_pass(health, now + 6.0, 3.0)[1] is Verdict.SUSPECT


def test_the_budget_is_a_share_of_recent_requests() -> None:
    budget = Budget(20.0, 3)
    assert [budget.take(0.0) for _ in range(4)] == [True, True, True, False]
    for _ in range(100):
        budget.arrived(1.0)
    assert sum(budget.take(1.0) for _ in range(100)) == 17
    assert not budget.take(4.0)
    assert budget.take(30.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=200))
def test_the_budget_is_never_exceeded(events: list[tuple[bool, float]]) -> None:
    budget, now, arrived, sent = Budget(50.0, 2), 0.0, [], []
    for is_arrival, rest in events:
        now += rest
        if is_arrival:
            budget.arrived(now)
            arrived.append(now)
        elif budget.take(now):
            sent.append(now)
        window = [t for t in sent if t > now - 5]
        assert len(window) <= max(2, 0.5 * len([t for t in arrived if t > now - 15]) + 1)


def test_a_new_replica_is_not_silent_since_the_clock_began() -> None:
    health = Health()
    assert health.listen(1000.0, 0.0, streams=True) is None
    assert health.listen(1000.0 + SILENCE_FLOOR_S, 0.0, streams=True) is None
    assert health.listen(1000.1 + SILENCE_FLOOR_S, 0.0, streams=True) is Verdict.SUSPECT
