"""Figures: percentiles, goodput and counts of known outcomes, for programs and for people."""

import pytest

from halffull.local.client import Outcome
from halffull.local.report import Slo, lines, percentile, report
from halffull.sim.trace import Call

SLO = Slo(ttft_s=1.0, tpot_s=0.1)


def outcome(ttft_s=0.5, tokens=11, tpot_s=0.05, *, error=None, replica="a", stream=True):
    last = ttft_s + tpot_s * (tokens - 1)
    seen = {"ttft_s": ttft_s, "last_token_s": last} if stream else {}
    return Outcome(
        Call(0.0, 100, 11), stream, 0.0, replica=replica, duration_s=last, tokens=tokens, error=error, **seen
    )


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.95, 4.8), (1.0, 5.0)])
def test_percentiles_are_interpolated(share, value):
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], share) == pytest.approx(value)


def test_one_value_is_every_percentile():
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(
    ("seen", "met"),
    [
        (outcome(), True),
        (outcome(ttft_s=1.1), False),
        (outcome(tpot_s=0.11), False),
        (outcome(tokens=1), True),
        (outcome(error="timeout"), False),
        (outcome(stream=False), True),
        (outcome(stream=False, ttft_s=1.9), False),
    ],
)
def test_the_objective(seen, met):
    assert SLO.met(seen) is met


def test_a_report_counts_what_happened():
    outcomes = [outcome(ttft_s=0.1 * n) for n in range(1, 20)]
    outcomes += [outcome(error="timeout"), outcome(error="timeout"), outcome(tokens=5, replica="b")]
    figures = report(outcomes, SLO, 10.0)

    assert figures["requests"] == {
        "sent": 22,
        "completed": 20,
        "failed": {"timeout": 2},
        "streamed": 22,
        "shorterThanAsked": 1,
    }
    assert figures["replicas"] == {"a": 21, "b": 1}
    assert figures["ttftSeconds"]["p50"] == pytest.approx(0.95)
    assert figures["tpotSeconds"]["p99"] == pytest.approx(0.05)
    assert figures["goodput"]["fraction"] == pytest.approx(11 / 22)
    assert figures["throughput"]["promptTokensPerSecond"] == pytest.approx(200.0)
    text = "\n".join(lines(figures))
    assert "22 sent in 10.0 s, 20 completed, 2 failed" in text
    assert "2 x timeout" in text
    assert "a: 21, b: 1" in text


def test_a_report_of_nothing():
    figures = report([], SLO, 1.0)

    assert figures["ttftSeconds"] is None
    assert "TTFT       not seen" in lines(figures)
