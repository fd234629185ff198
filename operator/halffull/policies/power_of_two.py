"""Policy `power-of-two`: the less loaded of a few replicas drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class PowerOfTwoParameters:
    """Parameters of policy `power-of-two`."""

    choices: Annotated[int, Bounds(ge=1, le=16)] = 2
    """replicas drawn per request; 2 has most of the gain (Mitzenmacher 2001)"""


class PowerOfTwo(Policy):
    """Intent: near `least-requests` at constant cost. Inputs: n, weights. Cost: a few draws, whatever the fleet's size.

    Use it on very large fleets, or with many routers that do not share their books: draws keep them from herding.
    """

    def __init__(self, parameters: PowerOfTwoParameters) -> None:
        self._choices = parameters.choices

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return the drawn candidate of least n/w; draws are independent, the first of equals wins."""
        size, draw = len(candidates), context.rng.randrange
        best = candidates[draw(size)]
        for _ in range(self._choices - 1):
            other = candidates[draw(size)]
            if other.in_flight * best.weight < best.in_flight * other.weight:
                best = other
        return best
