"""Decayed rates and ratios, and what the books learn from first tokens."""

import pytest

from halffull.core.books import PREFILL_RATE, Books, Replica
from halffull.core.estimators import Rate, Ratio


def test_a_rate_is_the_prior_until_evidence_outweighs_it() -> None:
    rate = Rate(30.0)
    assert rate.value(10.0, 100.0) == pytest.approx(10.0)
    rate.add(10_000.0, 100.0, 1.0)

    assert rate.value(10.0, 100.0) == pytest.approx(100.0, rel=0.1)


def test_a_rate_follows_recent_evidence() -> None:
    rate = Rate(10.0)
    for second in range(100):
        rate.add(100.0, 1.0, float(second))
    for second in range(100, 200):
        rate.add(10.0, 1.0, float(second))

    assert rate.value(50.0, 1.0) == pytest.approx(10.0, rel=0.05)


def test_per_second_is_over_clock_time() -> None:
    rate = Rate(5.0)
    for tenth in range(1000):
        rate.add(3.0, 0.0, tenth / 10)

    assert rate.per_second == pytest.approx(30.0, rel=0.02)


def test_a_ratio_moves_to_what_is_seen() -> None:
    ratio = Ratio(4.0)
    for _ in range(1000):
        ratio.add(300.0, 100.0)

    assert ratio.value == pytest.approx(3.0, rel=0.02)
    assert ratio.evidence == 1000


def test_the_books_learn_how_fast_each_replica_prefills() -> None:
    books = Books()
    fast, slow = Replica("fast", "h", 1), Replica("slow", "h", 2)
    books.add(fast)
    books.add(slow)
    now = 0.0
    for _ in range(600):
        for replica, seconds in ((fast, 0.05), (slow, 0.2)):
            replica.sent(1000, now)
            books.learn(replica, 1000, now + seconds)
            replica.started(1000, now + seconds)
            replica.ended(1000, now + seconds)
        now += 0.2

    assert fast.prefill_rate == pytest.approx(20_000, rel=0.1)
    assert slow.prefill_rate == pytest.approx(5_000, rel=0.1)
    assert books.fleet_rate == pytest.approx(8_000, rel=0.05)
    late = Replica("late", "h", 3)
    books.add(late)
    assert late.prefill_rate == books.fleet_rate


def test_a_replica_that_is_not_tried_is_taken_for_an_average_one_again() -> None:
    books = Books()
    slow, lucky, untried = (Replica(name, "h", 1) for name in ("slow", "lucky", "untried"))
    for replica in (slow, lucky, untried):
        books.add(replica)
    for replica, seconds in ((slow, 1.0), (lucky, 0.1)):
        for _ in range(20):
            replica.sent(1000, 0.0)
            books.learn(replica, 1000, seconds)
            replica.unsent(1000)
    assert slow.prefill_rate < 2_000
    assert lucky.prefill_rate > 4_000
    assert untried.prefill_rate == PREFILL_RATE

    books.look(1.0)
    assert untried.prefill_rate == books.fleet_rate < 2_500
    books.look(1000.0)
    assert slow.prefill_rate == pytest.approx(books.fleet_rate, rel=0.01)
    assert lucky.prefill_rate == pytest.approx(books.fleet_rate, rel=0.01)


def test_freed_kv_has_a_floor_and_needs_a_capacity() -> None:
    replica = Replica("r", "h", 1)
    assert replica.kv_free_rate(0.0) == 0.0
    replica.kv_tokens = 10_000.0
    assert replica.kv_free_rate(0.0) == pytest.approx(20.0)
    for second in range(100):
        replica.sent(500, float(second))
        replica.started(500, float(second))
        replica.ended(500, float(second))

    assert replica.kv_free_rate(99.0) == pytest.approx(500.0, rel=0.1)
