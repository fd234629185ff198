"""Whether the router's queue takes a request: by its bounds, and by the wait there. Kept by `dispatch`."""

from math import ceil

from halffull.core.contracts import Context
from halffull.core.errors import Failure, Reason
from halffull.core.estimators import Rate
from halffull.core.limits import Limits
from halffull.core.queue import Queue
from halffull.core.values import Request

PRIOR_DRAIN = 100.0
"""requests/s that a queue is taken to drain at, until some have been released"""
PRIOR_RELEASES = 5.0
"""how much evidence outweighs that"""
LONGEST_RETRY_S = 60


class Admission:
    """How fast the queue drains, and what follows for who comes now."""

    def __init__(self) -> None:
        self._released = Rate(10.0)
        self._since = 0.0

    def began(self, now: float) -> None:
        """A request begins to wait where none did."""
        self._since = now

    def released(self, now: float) -> None:
        """One that waited has a replica."""
        self._released.add(1.0, now - self._since, now)
        self._since = now

    def refusal(self, request: Request, queue: Queue, limits: Limits, context: Context) -> Failure | None:
        """Return why the queue does not take a request that comes now: its bounds, or a wait that would end in a time-out.

        The wait is that of its place: those before it, not all that wait, over the rate at which the queue drains.
        """
        per_second = self._released.value(PRIOR_DRAIN, PRIOR_RELEASES)
        if len(queue) >= limits.queue_requests or queue.bytes + request.body_bytes > limits.queue_bytes:
            return _failure("The queue is full.", len(queue) / per_second)
        wait_s = queue.ahead(request, per_second, context) / per_second
        if wait_s <= limits.queue_timeout_s:
            return None
        return _failure(f"The wait would be about {wait_s:.0f} s.", wait_s)


def _failure(message: str, wait_s: float) -> Failure:
    return Failure(Reason.QUEUE_FULL, message, retry_after_s=min(max(ceil(wait_s), 1), LONGEST_RETRY_S))
