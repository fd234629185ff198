"""From a contender's document to the router's own dispatcher. Called by `simulation`."""

from math import inf

from halffull.api.scenario import Objective
from halffull.api.scheduling import Scheduling, parameters_of
from halffull.core.contracts import Rng
from halffull.core.dispatch import Dispatcher
from halffull.core.gate import GATES
from halffull.core.limits import Limits
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES


def dispatcher_of(scheduling: Scheduling, objective: Objective, rng: Rng) -> Dispatcher:
    """Make policy, ordering and gate with the document's parameters, or the policy's defaults, and what runs them.

    The queue is unbounded: a comparison measures how long requests wait, so none is refused.
    """
    policy = POLICIES[scheduling.policy]
    ordering = scheduling.ordering or policy.ordering
    gate = scheduling.gate or policy.gate
    limits = Limits(
        queue_requests=1 << 60,
        queue_bytes=1 << 60,
        queue_timeout_s=1e12,
        no_replica_s=1e12,
        queue_fair=scheduling.queue.fairness == "callers",
        ttft_goal_s=scheduling.slo.ttft_seconds or objective.ttft_seconds,
        signals_s=inf if scheduling.signals.when_stale == "lastKnown" else scheduling.signals.stale_after_seconds,
        attempts=1 << 30,
    )
    return Dispatcher(
        policy.make(parameters_of(scheduling, policy.name)),
        ORDERINGS[ordering].make(parameters_of(scheduling, ordering)),
        GATES[gate].make(parameters_of(scheduling, gate)),
        rng,
        limits,
    )
