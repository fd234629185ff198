"""The status of a SchedulingPolicy: pure, from how far each of its users is. Called by `policies`."""

from collections.abc import Mapping
from typing import Any

from halffull.api.status import SchedulingPolicyStatus
from halffull.controller.conditions import Conditions


def policy_status(
    generation: int, users: Mapping[str, str], previous: Mapping[str, Any], now: str
) -> SchedulingPolicyStatus:
    """Return the status; `users` are the ModelDeployments that name the policy, each with why it is not applied there."""
    make = Conditions(previous, generation, now)
    behind = [f"{name}: {why}" for name, why in sorted(users.items()) if why]
    if behind:
        applied = make.false("Applied", "RollingOut", "; ".join(behind)[:1024])
    elif users:
        applied = make.true("Applied", "Applied", f"all {len(users)} ModelDeployments schedule by it")
    else:
        applied = make.true("Applied", "NotUsed", "no ModelDeployment names it")
    return SchedulingPolicyStatus(observed_generation=generation, users=len(users), conditions=(applied,))
