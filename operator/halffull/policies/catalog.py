"""All policies by name: the one table behind the `policy` field, its documentation and its validation."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from halffull.core.contracts import Policy
from halffull.core.entry import Entry
from halffull.policies.adaptive import Adaptive, AdaptiveParameters
from halffull.policies.halffull import Halffull, HalffullParameters
from halffull.policies.kv_cost import KvCost, KvCostParameters
from halffull.policies.least_kv import LeastKv
from halffull.policies.least_prefill import LeastPrefill
from halffull.policies.least_requests import LeastRequests
from halffull.policies.least_tokens import LeastTokens
from halffull.policies.llumnix import Llumnix, LlumnixParameters
from halffull.policies.power_of_two import PowerOfTwo, PowerOfTwoParameters
from halffull.policies.preble import Preble, PrebleParameters
from halffull.policies.predicted_ttft import PredictedTtft, PredictedTtftParameters
from halffull.policies.prefix_affinity import PrefixAffinity, PrefixAffinityParameters
from halffull.policies.random_choice import Random
from halffull.policies.round_robin import RoundRobin
from halffull.policies.sal import Sal, SalParameters
from halffull.policies.session import Session, SessionParameters
from halffull.policies.weighted_scores import WeightedScores, WeightedScoresParameters


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
    PolicyEntry("least-kv", "the least KV cache in use, from signals", LeastKv),
    PolicyEntry("least-prefill", "the fewest prompt tokens that wait for their first token", LeastPrefill),
    PolicyEntry("least-tokens", "the fewest tokens held, waiting or decoding", LeastTokens),
    PolicyEntry("llumnix", "the most free KV cache per request", Llumnix, parameters=LlumnixParameters),
    PolicyEntry("kv-cost", "the fewest tokens to prefill and to hold together", KvCost, KvCostParameters),
    PolicyEntry(
        "weighted-scores",
        "weighted scores of a short queue, free KV cache and a cached prefix, from signals",
        WeightedScores,
        WeightedScoresParameters,
    ),
    PolicyEntry("session", "one replica per session, within a bound of load", Session, SessionParameters),
    PolicyEntry(
        "prefix-affinity",
        "the longest cached prefix unless the fleet is out of balance",
        PrefixAffinity,
        PrefixAffinityParameters,
    ),
    PolicyEntry("preble", "a long cached prefix, else the least recent work", Preble, PrebleParameters),
    PolicyEntry("sal", "the least wait for the first token by queued tokens and free KV cache", Sal, SalParameters),
    PolicyEntry(
        "predicted-ttft", "the least predicted time to the first token", PredictedTtft, PredictedTtftParameters
    ),
    PolicyEntry(
        "halffull",
        "the least predicted time to the first token, bound late: our best",
        Halffull,
        HalffullParameters,
        ordering="adaptive-lifo",
        gate="kv",
    ),
    PolicyEntry("adaptive", "a mixture of others, learned from the times that were seen", Adaptive, AdaptiveParameters),
)

POLICIES: Mapping[str, PolicyEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
