"""All policies by name: the one table behind the `policy` field, its documentation and its validation."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from halffull.core.contracts import Policy
from halffull.core.entry import Entry
from halffull.policies.least_requests import LeastRequests
from halffull.policies.power_of_two import PowerOfTwo, PowerOfTwoParameters
from halffull.policies.random_choice import Random
from halffull.policies.round_robin import RoundRobin
from halffull.policies.sal import Sal, SalParameters


@dataclass(frozen=True)
class PolicyEntry(Entry[Policy]):
    """One policy as the catalog lists it."""

    ordering: str = "fcfs"
    """its default ordering"""
    gate: str = "limit"
    """its default gate"""


_ENTRIES = (
    PolicyEntry("random", "any replica, in proportion to weight", Random),
    PolicyEntry("round-robin", "each replica in turn, in proportion to weight", RoundRobin),
    PolicyEntry("least-requests", "the fewest requests in flight for its weight", LeastRequests),
    PolicyEntry("power-of-two", "the less loaded of two random replicas", PowerOfTwo, PowerOfTwoParameters),
    PolicyEntry("sal", "the least wait for the first token by queued tokens and free KV cache", Sal, SalParameters),
)

POLICIES: Mapping[str, PolicyEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
