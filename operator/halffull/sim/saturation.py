"""What one replica can do: the throughput that `load` is a fraction of. Called by `setting`."""

from collections.abc import Sequence

from halffull.sim.engine_model import EngineModel, EngineSequence
from halffull.sim.profiles import Profile
from halffull.sim.trace import Call

SAMPLE = 10_000
"""requests that are enough, taken from the trace's beginning"""
UNMEASURED = 0.1
"""part of the requests that fills the replica first"""


def saturated_throughput(calls: Sequence[Call], profile: Profile) -> float:
    """Requests per second of one replica that has them all waiting, first come, first served, without prefix hits."""
    model = EngineModel(profile)
    calls = calls[:SAMPLE]
    for call in calls:
        model.submit(EngineSequence(call.prompt_tokens, call.output_tokens))
    skipped, done, now, since = int(UNMEASURED * len(calls)), 0, 0.0, 0.0
    while (seconds := model.start(1 << 30)) is not None:
        now += seconds
        done += len(model.finish().finished)
        if done <= skipped:
            since = now
    return (len(calls) - skipped) / (now - since)
