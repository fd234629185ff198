"""The scale signal: demand in replicas, up at once it is lasting, down after minutes, from zero by the first request."""

from halffull.core.scaling import Demand, demand, scaled
from halffull.core.values import Signals


def engine(kv: float, running: float = 8, waiting: float = 0) -> Signals:
    return Signals(running=running, waiting=waiting, kv_usage=kv)


def rounds(
    state: Demand,
    signals: list[Signals | None],
    current: int,
    *,
    start: float = 0,
    seconds: float = 60,
    queued: int = 0,
) -> tuple[Demand, list[int]]:
    """A look every 5 s at a load that stays as it is."""
    seen = []
    told = {str(number): each for number, each in enumerate(signals)}
    for now in range(int(start), int(start + seconds) + 1, 5):
        state = scaled(state, told, queued, current, now=now)
        seen.append(state.desired or 0)
    return state, seen


def test_demand_is_memory_in_use_and_what_waits_over_what_an_engine_runs() -> None:
    assert demand({"a": engine(0.5), "b": engine(0.25)}, queued=0) == 0.75
    assert demand({"a": engine(0.9, running=10, waiting=5), "b": engine(0.9, running=10)}, queued=15) == 1.8 + 2
    assert demand({"a": None}, queued=3) == 1
    assert demand({}, queued=0) == 0


def test_more_are_asked_for_once_demand_has_lasted() -> None:
    _, seen = rounds(Demand(), [engine(0.9, waiting=4), engine(0.9, waiting=4)], 2)

    assert seen[:6] == [2] * 6
    assert seen[-1] == 4  # 1.8 and one batch that waits: 2.8 at 0.7 each


def test_a_burst_that_goes_asks_for_nothing() -> None:
    state, _ = rounds(Demand(), [engine(0.4)], 1)
    state, seen = rounds(state, [engine(0.95, waiting=30)], 1, start=65, seconds=20)
    _, after = rounds(state, [engine(0.4)], 1, start=90)

    assert set(seen + after) == {1}


def test_fewer_are_asked_for_after_minutes_and_not_to_and_fro() -> None:
    state, seen = rounds(Demand(), [engine(0.2)] * 4, 4, seconds=400)
    assert seen[:56] == [4] * 56
    assert seen[-1] == 2

    _, seen = rounds(state, [engine(0.4)] * 2, 2, start=405, seconds=900)  # the same load on two
    assert set(seen) == {2}


def test_nothing_is_taken_away_while_an_engine_does_not_tell() -> None:
    assert set(rounds(Demand(), [engine(0.1), None, engine(0.1)], 3, seconds=900)[1]) == {3}


def test_an_idle_fleet_goes_to_none_and_the_first_request_brings_one() -> None:
    state, seen = rounds(Demand(), [engine(0.0, running=0)], 1, seconds=400)
    assert seen[-1] == 0

    state, seen = rounds(state, [], 0, start=405, seconds=60)
    assert set(seen) == {0}
    state, seen = rounds(state, [], 0, start=470, seconds=5, queued=7)
    assert seen == [1, 1]
    # the engine starts meanwhile: seven wait, and what part of it that is cannot be known
    state, seen = rounds(state, [], 1, start=480, seconds=20, queued=7)
    assert set(seen) == {1}
    state, seen = rounds(state, [None], 1, start=505, seconds=200, queued=70)
    assert set(seen) == {1}
    _, seen = rounds(state, [engine(0.6, running=70)], 1, start=710, seconds=200)
    assert set(seen) == {1}


def test_engines_that_none_can_ask_are_not_made_more() -> None:
    state, _ = rounds(Demand(), [engine(0.4), engine(0.4)], 2)
    assert set(rounds(state, [None, None], 2, start=65, seconds=600, queued=40)[1]) == {2}


def test_an_engine_that_runs_requests_and_does_not_tell_its_memory_is_not_idle() -> None:
    silent = Signals(running=5, waiting=0)
    assert set(rounds(Demand(), [silent, silent], 2, seconds=900)[1]) == {2}
    assert rounds(Demand(), [Signals(running=0, waiting=0)], 1, seconds=400)[1][-1] == 0


def test_a_count_that_cannot_be_asks_for_no_more_than_may_be() -> None:
    assert rounds(Demand(), [engine(0.5, waiting=1e15)], 2)[1][-1] == 10_000
