"""Ordering `deadline`: who can still meet the goal for the first token goes first, each group in the order of `larry`."""

from dataclasses import dataclass
from typing import Annotated

from halffull.core.bounds import Bounds
from halffull.core.contracts import Context
from halffull.core.values import Request
from halffull.orderings.larry import Larry, LarryParameters


@dataclass(frozen=True, slots=True)
class DeadlineParameters:
    """Parameters of ordering `deadline`."""

    kappa: Annotated[float, Bounds(ge=0, le=1000)] = 1.0
    """seconds that a request steps back per second of its own prefill, as in `larry`; more sheds long prompts sooner"""
    ttft_seconds: Annotated[float, Bounds(gt=0, le=3600)] = 2.0
    """goal for the time to the first token, where `slo.ttftSeconds` is absent"""
    late_seconds: Annotated[float, Bounds(ge=0, le=86_400)] = 600.0
    """how far a late request goes behind: it is passed by those that arrive within this time after it, and by no other"""


class Deadline(Larry):
    """Intent: the most requests within the goal (goodput first). Inputs: those of `larry`, and `slo.ttftSeconds`.
    Cost: that of `larry`, and one pass over the replicas.

    Use it where a late answer is worth nothing, at loads where not all can be in time. Do not use it where every request
    counts the same: beyond saturation the late ones wait for ten minutes, or as long as the queue lets them.

    A request is late when even the replica with the least to do could not start it within the goal: after its work and a step.
    """

    def __init__(self, parameters: DeadlineParameters) -> None:
        super().__init__(LarryParameters(kappa=parameters.kappa))
        self._goal_s = parameters.ttft_seconds
        self._late_s = parameters.late_seconds
        self._looked_at = -1.0
        self._least_s = 0.0

    def key(self, request: Request, context: Context) -> float:
        """Return the key of `larry`, far behind once the request is late."""
        goal_s = context.ttft_goal_s or self._goal_s
        late = context.now + self._wait_s(context) + context.prefill_s(request) > request.arrived + goal_s
        return super().key(request, context) + (self._late_s if late else 0.0)

    def _wait_s(self, context: Context) -> float:
        """Return the seconds until the replica with the least to do is free, and of a step; looked up once per moment."""
        if context.now != self._looked_at:
            self._looked_at = context.now
            replicas = context.books.replicas.values()
            waits = [(r.work_left(context.now) + r.max_batched_tokens) / r.prefill_rate for r in replicas]
            self._least_s = min(waits, default=0.0)
        return self._least_s
