"""Ordering `larry`: by arrival, but large prompts step back when memory is short, and age back in."""

from dataclasses import dataclass
from typing import Annotated

from halffull.core.bounds import Bounds
from halffull.core.contracts import Context, Ordering
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class LarryParameters:
    """Parameters of ordering `larry`."""

    kappa: Annotated[float, Bounds(ge=0, le=1000)] = 5.0
    """seconds that a request steps back per second of its own prefill; twice that when memory is full; 0 is `fcfs`"""


class Larry(Ordering):
    """Intent: many short requests before a long one, without starving it. Inputs: arrival, own prefill, KV pressure of the
    fleet. Cost: one pass over the replicas.

    Use it where goodput or the median counts and prompts differ much in length. Do not use it where the 99th percentile
    counts: it is made of the long prompts that step back.

    A request is only passed by those that arrive within kappa times its own prefill seconds (twice that at full memory), so
    its wait is bounded. Source: LARRY of arXiv 2410.17840 gives the idea; the formula is our reading.
    """

    def __init__(self, parameters: LarryParameters) -> None:
        self._kappa = parameters.kappa

    def key(self, request: Request, context: Context) -> float:
        """Return arrival + kappa x own prefill x (1 + KV pressure), seconds."""
        step_back = self._kappa * context.prefill_s(request)
        return request.arrived + step_back * (1 + min(context.books.kv_pressure, 1.0))
