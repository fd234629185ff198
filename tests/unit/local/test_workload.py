"""Arrivals: rates, patterns and limits come out as asked, and the same seed gives the same calls."""

from itertools import islice, pairwise
from random import Random
from statistics import median, pstdev

import pytest

from halffull.local import workload
from halffull.sim.trace import Call

CALLS = [Call(0.0, 10, 1), Call(1.0, 20, 2), Call(4.0, 30, 3)]


def gaps(calls):
    return [after.at_s - before.at_s for before, after in pairwise(calls)]


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process():
    calls = list(islice(workload.poisson(workload.drawn(CALLS, Random(1)), 50.0, Random(1)), 5000))

    assert calls[-1].at_s == pytest.approx(100.0, rel=0.05)
    assert pstdev(gaps(calls)) == pytest.approx(0.02, rel=0.05)


def test_a_seed_decides_everything():
    def first(seed):
        return list(islice(workload.poisson(workload.drawn(CALLS, Random(seed)), 5.0, Random(seed)), 20))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_drawing_uses_each_call_once_a_round():
    drawn = list(islice(workload.drawn(CALLS, Random(3)), 6))

    assert sorted(call.prompt_tokens for call in drawn[:3]) == [10, 20, 30]
    assert sorted(call.prompt_tokens for call in drawn[3:]) == [10, 20, 30]


def test_speedup_divides_the_gaps():
    assert gaps(workload.faster(CALLS, 2.0)) == [0.5, 1.5]


def test_a_rate_keeps_the_pattern_of_the_trace():
    calls = list(workload.at_rate(CALLS, 10.0))

    assert calls[-1].at_s == pytest.approx(0.2)
    assert gaps(calls)[1] / gaps(calls)[0] == pytest.approx(3.0)


def test_a_rate_for_a_single_call_is_no_division_by_zero():
    assert list(workload.at_rate(CALLS[:1], 10.0)) == CALLS[:1]


@pytest.mark.parametrize(
    ("requests", "seconds", "kept"), [(None, None, 3), (2, None, 2), (None, 4.0, 2), (3, 0.5, 1), (0, None, 0)]
)
def test_limits(requests, seconds, kept):
    assert list(workload.limited(CALLS, requests, seconds)) == CALLS[:kept]


def test_lognormal_lengths_have_the_medians():
    calls = workload.lognormal_lengths(5000, 500, 100, 0.8, Random(1))

    assert median(call.prompt_tokens for call in calls) == pytest.approx(500, rel=0.05)
    assert median(call.output_tokens for call in calls) == pytest.approx(100, rel=0.05)
    assert min(call.output_tokens for call in calls) >= 1


def test_arrivals_are_known_only_where_the_trace_has_times():
    assert workload.has_arrivals(CALLS)
    assert not workload.has_arrivals([Call(0.0, 1, 1), Call(0.0, 2, 2)])
