"""The garbage collector of a router: rare, measured, and as before when the router is gone."""

import gc

from halffull.router.garbage import THRESHOLDS, tamed
from halffull.router.observability.telemetry import DELAY_BUCKETS, Histogram


def test_the_collector_is_rare_and_measured_while_the_router_runs() -> None:
    before, pauses = gc.get_threshold(), Histogram(DELAY_BUCKETS)
    with tamed(pauses):
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 0
        gc.collect()
        assert sum(pauses.counts) == 1
        assert pauses.sum > 0
    gc.collect()
    assert sum(pauses.counts) == 1
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)
