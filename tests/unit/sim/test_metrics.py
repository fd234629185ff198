"""Histograms and lagging gauges of a simulated engine."""

from halffull.sim.metrics import EngineMetrics, Gauges, Histogram


def test_a_histogram_counts_equal_values_at_once():
    histogram = Histogram((1, 2))
    histogram.observe(1.0, 3)
    histogram.observe(1.5)
    histogram.observe(9.0, 2)
    assert histogram.counts == [3, 1, 2]
    assert histogram.sum == 3 + 1.5 + 18


def test_gauges_show_the_state_of_some_time_ago():
    metrics = EngineMetrics(4096, 0.3)
    assert metrics.gauges(0.0) == Gauges()
    metrics.record(10.0, Gauges(running=1))
    metrics.record(10.2, Gauges(running=2, waiting=5))
    assert metrics.gauges(10.29) == Gauges()
    assert metrics.gauges(10.31) == Gauges(running=1)
    assert metrics.gauges(10.49) == Gauges(running=1)
    assert metrics.gauges(10.51) == metrics.gauges(99.0) == Gauges(running=2, waiting=5)


def test_only_what_can_still_be_seen_is_kept():
    metrics = EngineMetrics(4096, 0.3)
    for tick in range(10_000):
        metrics.record(tick * 0.02, Gauges(running=tick))
    assert len(metrics._past) < 20
