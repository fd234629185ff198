"""What a dispatcher lets happen; hosts make it from their documents (`router.scheduler`, `sim.scheduler`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What the dispatcher lets happen; from `scheduling.queue` and `router.retries`."""

    queue_requests: int = 1024
    queue_bytes: int = 256 << 20
    queue_timeout_s: float = 30.0
    no_replica_s: float = 10.0
    """how long a request waits while no replica is ready"""
    queue_fair: bool = True
    """callers take turns"""
    ttft_goal_s: float | None = None
    """time to the first token that users are promised"""
    signals_s: float = float("inf")
    """age from which policies go by the books instead of an engine's signals"""
    attempts: int = 4
    """replicas that are tried for one request"""
    budget_percent: float = 20.0
    budget_minimum: int = 10
    """requests that may be sent again after a refusal, of all of ten seconds and in any case"""
