"""The index against the engine's counters: shares of prompt tokens found cached."""

import pytest

from halffull.core.prefix_error import PrefixError


def test_nothing_is_known_before_the_engine_counted_something_of_ours():
    error = PrefixError()
    error.sent(100, 50)
    error.told(1000, 900)
    error.told(1000, 900)
    error.told(None, None)
    assert (error.predicted, error.counted) == (None, None)


def test_shares_are_of_what_came_since_the_first_look():
    error = PrefixError()
    error.sent(1000, 1000)
    error.told(5000, 5000)
    error.sent(100, 50)
    error.sent(300, 50)
    error.told(5400, 5040)
    assert (error.predicted, error.counted) == (0.25, 0.1)


def test_counters_that_begin_anew_are_not_counted_back():
    error = PrefixError()
    error.told(5000, 5000)
    error.sent(100, 50)
    error.told(5100, 5020)
    error.told(10, 0)
    error.sent(100, 50)
    error.told(110, 20)
    assert error.counted == pytest.approx(0.2)


def test_old_evidence_fades():
    error = PrefixError()
    error.told(0, 0)
    for share in (0.0, 1.0):
        for _ in range(500):
            error.sent(100, int(100 * share))
            before = error._counters
            error.told(before[0] + 100, before[1] + 100 * share)
    assert error.predicted > 0.98
    assert error.counted > 0.98
