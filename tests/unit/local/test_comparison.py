"""The demo's summary: only the requests of the two windows count, and a change is named for what it is."""

from halffull.local.client import Outcome
from halffull.local.comparison import Windows, compare, lines
from halffull.sim.trace import Call

WINDOWS = Windows((10.0, 20.0), (30.0, 40.0))


def outcome(due_s, ttft_s, *, replica="a", error=None):
    return Outcome(
        Call(0.0, 10, 11),
        stream=True,
        due_s=due_s,
        replica=replica,
        ttft_s=ttft_s,
        last_token_s=ttft_s + 0.1,
        duration_s=ttft_s + 0.1,
        tokens=11,
        error=error,
    )


def test_only_the_windows_count():
    outcomes = [outcome(due_s, 9.0) for due_s in (9.9, 20.0, 29.9, 40.0)]
    outcomes += [outcome(10.0, 0.4), outcome(19.9, 0.4, replica="slow"), outcome(30.0, 0.1)]
    figures = compare(outcomes, WINDOWS, "slow")

    assert figures["before"]["requests"]["sent"] == 2
    assert figures["before"]["ttftSeconds"]["p99"] == 0.4
    assert figures["before"]["slowReplicaShare"] == 0.5
    assert figures["after"]["requests"]["sent"] == 1
    assert figures["after"]["slowReplicaShare"] == 0.0


def test_the_table_says_which_way_it_went():
    def text(before, after):
        return "\n".join(lines(compare([outcome(10.0, before), outcome(30.0, after)], WINDOWS, "b"), "rr", "sal"))

    assert "TTFT p99" in text(0.4, 0.1)
    assert "4.0x shorter" in text(0.4, 0.1)
    assert "4.0x longer" in text(0.1, 0.4)
    assert "shorter" not in text(0.1, 0.101)


def test_failures_are_counted():
    figures = compare([outcome(10.0, 0.4), outcome(11.0, 0.4, error="x"), outcome(30.0, 0.1)], WINDOWS, "b")
    row = next(line for line in lines(figures, "rr", "sal") if line.startswith("failed"))

    assert row.split() == ["failed", "1", "0"]


def test_too_few_requests():
    assert lines(compare([], WINDOWS, "b"), "rr", "sal") == ["too few requests to compare: give it more --seconds"]
