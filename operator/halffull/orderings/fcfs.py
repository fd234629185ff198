"""Ordering `fcfs`: first come, first served."""

from halffull.core.contracts import Context, Ordering
from halffull.core.values import Request


class Fcfs(Ordering):
    """Intent: fairness by arrival; no request is ever overtaken. Inputs: arrival. Cost: none."""

    def key(self, request: Request, context: Context) -> float:
        """Return the arrival time, seconds."""
        return request.arrived
