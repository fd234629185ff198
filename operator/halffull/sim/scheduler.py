"""From a contender's document to the router's own dispatcher. Called by `simulation`."""

from halffull.api.scheduling import Scheduling, parameters_of
from halffull.core.contracts import Rng
from halffull.core.dispatch import Dispatcher, Limits
from halffull.core.gate import GATES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES

UNBOUNDED = Limits(
    queue_requests=1 << 60, queue_bytes=1 << 60, queue_timeout_s=1e12, no_replica_s=1e12, attempts=1 << 30
)
"""a comparison measures how long requests wait, so none is refused"""


def dispatcher_of(scheduling: Scheduling, rng: Rng) -> Dispatcher:
    """Make policy, ordering and gate with the document's parameters, or the policy's defaults, and what runs them."""
    policy = POLICIES[scheduling.policy]
    ordering = scheduling.ordering or policy.ordering
    gate = scheduling.gate or policy.gate
    return Dispatcher(
        policy.make(parameters_of(scheduling, policy.name)),
        ORDERINGS[ordering].make(parameters_of(scheduling, ordering)),
        GATES[gate].make(parameters_of(scheduling, gate)),
        rng,
        UNBOUNDED,
    )
