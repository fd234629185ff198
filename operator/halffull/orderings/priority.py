"""Ordering `priority`: by class, each class in the order of `larry`."""

from dataclasses import dataclass
from typing import Annotated

from halffull.core.bounds import Bounds
from halffull.core.contracts import Context
from halffull.core.values import Request
from halffull.orderings.larry import Larry, LarryParameters

CLASS_S = 1e9
"""seconds between two classes"""


@dataclass(frozen=True, slots=True)
class PriorityParameters:
    """Parameters of ordering `priority`."""

    kappa: Annotated[float, Bounds(ge=0, le=1000)] = 5.0
    """seconds that a request steps back per second of its own prefill, as in `larry`"""


class Priority(Larry):
    """Intent: urgent work first. Inputs: class of the request (header x-halffull-priority, lower first), those of `larry`.
    Cost: that of `larry`.

    Use it where urgent and patient work share replicas. Do not use it where every client calls itself urgent: classes are
    believed. The queue keeps classes apart under every ordering; this one puts them before `larry` also where a rank is
    handed on to an engine.
    """

    def __init__(self, parameters: PriorityParameters) -> None:
        super().__init__(LarryParameters(kappa=parameters.kappa))

    def key(self, request: Request, context: Context) -> float:
        """Return the key of `larry` within the class."""
        return request.priority * CLASS_S + super().key(request, context)
