"""Policy `halffull`: `predicted-ttft`, held back by gate `kv` until a replica can begin soon and has the memory."""

from dataclasses import dataclass
from typing import Annotated

from halffull.core.bounds import Bounds
from halffull.policies.predicted_ttft import PredictedTtft, PredictedTtftParameters


@dataclass(frozen=True, slots=True)
class HalffullParameters:
    """Parameters of policy `halffull`."""

    own_weight: Annotated[float, Bounds(ge=0, le=100)] = 6.0
    """what a second of the request's own prefill counts for beyond its wait, in seconds: it delays those that come after, so more
    favours replicas that hold more of the prompt"""
    max_moves: Annotated[int, Bounds(ge=0, le=3)] = 3
    """times that a request which waits in an engine may be moved to a replica that would start it earlier; 0: never"""


class Halffull(PredictedTtft):
    """Intent: the least time to the first token for most requests, without pre-emptions. Inputs: those of `predicted-ttft`
    and of gate `kv`. Cost: one pass over the candidates, for at most 16 requests of the queue per event.

    Use it where KV memory is tight, where prompts share beginnings, or where goodput at a goal counts (ordering `deadline`).
    Do not use it with many routers: each has its own queue. Four that share within 5 ms cost up to a tenth of its p99; where
    they share nothing, half.

    A request is bound to a replica as late as the engine does not idle for it: until then it can still go to whichever is
    free first, and memory is promised to no more than fit. What waits in an engine all the same, since its replica turned out
    slower than was thought, is moved. Source: ours.
    """

    def __init__(self, parameters: HalffullParameters) -> None:
        super().__init__(PredictedTtftParameters(own_weight=parameters.own_weight))
        self.max_moves = parameters.max_moves
