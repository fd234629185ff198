"""Ordering `srpt`: the least predicted work first, within limits."""

from dataclasses import dataclass
from typing import Annotated

from halffull.core.bounds import Bounds
from halffull.core.contracts import Context, Ordering
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class SrptParameters:
    """Parameters of ordering `srpt`."""

    patience_seconds: Annotated[float, Bounds(ge=0, le=3600)] = 10.0
    """a request is not passed by those that arrive later than this after it"""
    token_seconds: Annotated[float, Bounds(ge=0, le=10)] = 0.001
    """work of a generated token, in seconds of one replica: step time over sequences that share it"""
    kappa: Annotated[float, Bounds(ge=0, le=1000)] = 20.0
    """seconds that a request steps back per second of predicted work, up to the patience"""


class Srpt(Ordering):
    """Intent: the least mean time in the system. Inputs: own prefill, expected output (lengths of earlier answers to the
    same caller and `max_tokens`), arrival. Cost: a pass over 68 buckets.

    Use it where callers or `max_tokens` tell long answers from short ones. Do not use it where all requests look alike:
    it is then `larry` with other constants.

    What has not started is pre-empted by staying in the router's queue, and only within the patience; what has started
    is never pre-empted. Source: TRAIL (arXiv 2410.01035), whose predictor reads the model's layers; ours is the survival of
    output lengths.
    """

    def __init__(self, parameters: SrptParameters) -> None:
        self._parameters = parameters

    def key(self, request: Request, context: Context) -> float:
        """Return arrival and what the request steps back for its predicted work, seconds."""
        parameters = self._parameters
        work_s = context.prefill_s(request) + parameters.token_seconds * context.books.outputs.left(request)
        return request.arrived + min(parameters.kappa * work_s, parameters.patience_seconds)
