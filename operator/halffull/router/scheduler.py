"""From the scheduling document to the objects that decide: policy, ordering, gate and the dispatcher's limits.

`app` builds them for each new document; `status` shows the names.
"""

from dataclasses import dataclass
from math import inf

from halffull.api.router_config import RouterConfig
from halffull.api.scheduling import Scheduling, parameters_of
from halffull.core.contracts import Gate, Ordering, Policy
from halffull.core.gate import GATES
from halffull.core.limits import Limits
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES


@dataclass(frozen=True, slots=True)
class Names:
    """What is in force, by name: what the document says, else the policy's defaults."""

    policy: str
    ordering: str
    gate: str


@dataclass(frozen=True, slots=True)
class Scheduler:
    """What a dispatcher is configured with."""

    names: Names
    policy: Policy
    ordering: Ordering
    gate: Gate


def names_of(scheduling: Scheduling) -> Names:
    """Return the names that a document puts in force."""
    defaults = POLICIES[scheduling.policy]
    return Names(scheduling.policy, scheduling.ordering or defaults.ordering, scheduling.gate or defaults.gate)


def build(scheduling: Scheduling) -> Scheduler:
    """Make policy, ordering and gate with the parameters that the document gives."""
    names = names_of(scheduling)
    return Scheduler(
        names,
        POLICIES[names.policy].make(parameters_of(scheduling, names.policy)),
        ORDERINGS[names.ordering].make(parameters_of(scheduling, names.ordering)),
        GATES[names.gate].make(parameters_of(scheduling, names.gate)),
    )


def limits(document: RouterConfig) -> Limits:
    """Return what the dispatcher lets happen."""
    queue, signals = document.scheduling.queue, document.scheduling.signals
    return Limits(
        queue_requests=queue.max_requests,
        queue_bytes=queue.max_bytes,
        queue_timeout_s=queue.timeout_seconds,
        no_replica_s=queue.no_replica_seconds,
        queue_fair=queue.fairness == "callers",
        ttft_goal_s=document.scheduling.slo.ttft_seconds,
        signals_s=inf if signals.when_stale == "lastKnown" else signals.stale_after_seconds,
        attempts=document.router.retries.attempts,
        budget_percent=document.router.retries.budget_percent,
        budget_minimum=document.router.retries.budget_minimum,
    )


def differs(one: RouterConfig, other: RouterConfig) -> bool:
    """Whether two documents need different schedulers; policies with a memory keep it otherwise."""
    return (one.scheduling, one.router.retries) != (other.scheduling, other.router.retries)
