"""Ordering `adaptive-lifo`: first come, first served, but in a backlog those that came just now before those that wait."""

from dataclasses import dataclass
from typing import Annotated

from halffull.core.bounds import Bounds
from halffull.core.contracts import Context, Ordering
from halffull.core.values import Request

BEHIND = 1e10
"""seconds: beyond every arrival, also where the clock counts from 1970"""


@dataclass(frozen=True, slots=True)
class AdaptiveLifoParameters:
    """Parameters of ordering `adaptive-lifo`."""

    patience_seconds: Annotated[float, Bounds(ge=0, le=3600)] = 20.0
    """wait of the longest waiting request from which there is a backlog; should be so near to `queue.timeoutSeconds` that some
    are about to be lost whatever goes first"""
    fresh_seconds: Annotated[float, Bounds(ge=0, le=3600)] = 1.0
    """in a backlog those that came within this time go first, in their order, then the others, the newest first; 0: all the
    newest first, which makes single requests wait much longer than others"""


class AdaptiveLifo(Ordering):
    """Intent: an overload is over for new requests when it is over. Inputs: arrival, the longest wait in the queue. Cost: none.

    Use it where more requests may come than the fleet can answer. Do not use it where each must be answered however late: in an
    overload those that have waited wait on, until the backlog is gone or they time out.

    Under `fcfs` all that come after an overload wait for what is left of it, whose clients may have given up. Here these go, with
    a late gate, only to replicas that have no prompt to compute and a quarter of their memory to spare, so that the next one finds
    room. Source: the idea is of "Fail at Scale" (ACM Queue 13:8, 2015), where the newest go first while the queue stands.
    """

    def __init__(self, parameters: AdaptiveLifoParameters) -> None:
        self._patience_s = parameters.patience_seconds
        self._fresh_s = parameters.fresh_seconds

    def mode(self, context: Context) -> int:
        """Return 1 in a backlog, else 0."""
        since = context.waiting_since
        return int(since is not None and context.now - since > self._patience_s)

    def key(self, request: Request, context: Context) -> float:
        """Return the arrival, seconds; in a backlog, once the request is not fresh, behind all that are, the newest first."""
        return BEHIND - request.arrived if self.behind(request, context) else request.arrived

    def behind(self, request: Request, context: Context) -> bool:
        """Whether there is a backlog and the request is not fresh."""
        return context.now - request.arrived > self._fresh_s and self.mode(context) == 1
