"""Ordering `deadline`: the most requests that can be in time go first; of too many, the largest prompts step behind."""

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Annotated

from halffull.core.bounds import Bounds
from halffull.core.contracts import Context, Ordering
from halffull.core.values import Request, State

EVERY_S = 0.05
"""how often is planned anew who can be in time: the router's tick"""


@dataclass(frozen=True, slots=True)
class DeadlineParameters:
    """Parameters of ordering `deadline`."""

    kappa: Annotated[float, Bounds(ge=0, le=1000)] = 1.0
    """seconds that a request steps back per second of its own prefill"""
    ttft_seconds: Annotated[float, Bounds(gt=0, le=3600)] = 2.0
    """goal for the time to the first token, where `slo.ttftSeconds` is absent"""
    late_seconds: Annotated[float, Bounds(ge=0, le=86_400)] = 600.0
    """how far a late request goes behind: it is passed by those that arrive within this time after it, and by no other; one that
    is given up and not late yet goes half as far"""


class Deadline(Ordering):
    """Intent: the most requests within the goal (goodput first). Inputs: arrival, own prefill, who waits; W, v, KD, QK, K, n
    of all replicas, `slo.ttftSeconds`. Cost: 20 times a second, one pass over the replicas and those that wait and are in time.

    Use it where a late answer is worth nothing, at loads where not all can be in time. Do not use it where every request
    counts the same: beyond saturation, long prompts and late ones wait for ten minutes, or as long as the queue lets them.

    Those that wait are gone through by arrival. Each is taken to start when the fleet has done the work before it, and has the
    memory and the places in batches for it; whenever one would be late, the largest prompt so far is given up: one machine's
    rule for the fewest late jobs (Moore, Management Science 15:102, 1968), on the fleet as if it were one.
    """

    def __init__(self, parameters: DeadlineParameters) -> None:
        self._kappa = parameters.kappa
        self._goal_s = parameters.ttft_seconds
        self._late_s = parameters.late_seconds
        self._planned_at = -EVERY_S
        self._waiting: dict[str, Request] = {}
        """those not given up"""
        self._given_up: set[str] = set()
        self._least_s = 0.0

    def joined(self, request: Request) -> None:
        """Count it among those that wait."""
        self._waiting[request.id] = request

    def left(self, request: Request) -> None:
        """Count it no longer."""
        self._waiting.pop(request.id, None)
        self._given_up.discard(request.id)

    def key(self, request: Request, context: Context) -> float:
        """Return arrival + kappa x own prefill, seconds; far behind once the request is given up, and farther once it is late."""
        if not 0 <= context.now - self._planned_at < EVERY_S:
            self._plan(context)
        own_s = context.prefill_s(request)
        return request.arrived + self._kappa * own_s + self._back_s(request, own_s, context)

    def behind(self, request: Request, context: Context) -> bool:
        """Whether it was given up or is late, and has not waited so long that it goes by its arrival again."""
        return self._back_s(request, context.prefill_s(request), context) > max(context.now - request.arrived, 0.0)

    def _back_s(self, request: Request, own_s: float, context: Context) -> float:
        """Return how far behind it goes; farthest where even the replica with the least to do could not start it in time."""
        if context.now + self._least_s + own_s > request.arrived + (context.ttft_goal_s or self._goal_s):
            return self._late_s
        return self._late_s / 2 if request.id in self._given_up else 0.0

    def _plan(self, context: Context) -> None:
        """Give up the largest prompts until the others can be in time."""
        self._planned_at = now = context.now
        fleet = _Fleet(context)
        self._least_s = fleet.least_s
        goal_s, kept = context.ttft_goal_s or self._goal_s, self._waiting
        largest: list[tuple[float, str]] = []
        seconds, tokens, count = 0.0, 0, 0
        for request in sorted(kept.values(), key=_arrival):
            own_s, left_s = context.prefill_s(request), request.arrived + goal_s - now
            if fleet.least_s + own_s > left_s:
                self._give_up(request.id)
                continue
            heappush(largest, (-own_s, request.id))
            seconds, tokens, count = seconds + own_s, tokens + request.prompt_tokens, count + 1
            if fleet.start_s(seconds - own_s, tokens, count) + own_s > left_s:
                size_s, name = heappop(largest)
                seconds, tokens, count = seconds + size_s, tokens - kept[name].prompt_tokens, count - 1
                self._give_up(name)

    def _give_up(self, name: str) -> None:
        del self._waiting[name]
        self._given_up.add(name)


class _Fleet:
    """All replicas as one: when it can start what."""

    def __init__(self, context: Context) -> None:
        replicas = [one for one in context.books.replicas.values() if one.state is State.READY and not one.suspended]
        now, self._rate = context.now, context.books.fleet_rate
        self._speed = sum(one.prefill_rate for one in replicas) or self._rate
        self._work = sum(one.work_left(now) for one in replicas)
        waits = [(one.work_left(now) + one.max_batched_tokens) / one.prefill_rate for one in replicas]
        self.least_s = min(waits, default=0.0)
        """until the replica with the least to do is free, and a step"""
        self._step_s = sum(one.max_batched_tokens for one in replicas) / self._speed
        capacity = sum(one.kv_tokens or 0.0 for one in replicas)
        held = sum(one.decode_tokens + one.waiting_prompt_tokens for one in replicas if one.kv_tokens is not None)
        self._room = capacity - held if capacity else float("inf")
        places = sum(one.max_sequences for one in replicas)
        self._places = places - sum(one.in_flight for one in replicas)
        # Where prompts wait for memory or places, all of these are taken, and are given back as long as answers last.
        self._freed_per_s = max(capacity, 1.0) / context.books.decode_left_s
        self._left_per_s = max(places, 1) / context.books.decode_left_s

    def start_s(self, seconds: float, tokens: int, count: int) -> float:
        """Return the seconds until the last of `count` prompts starts: `seconds` of work before it, `tokens` with it."""
        compute = (self._work + seconds * self._rate) / self._speed + self._step_s
        memory = (tokens - self._room) / self._freed_per_s
        places = (count - self._places) / self._left_per_s
        return max(compute, memory, places)


def _arrival(request: Request) -> float:
    return request.arrived
