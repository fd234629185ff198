"""Policies that keep large fleets in order choose as well as a pass over all candidates would, whatever happened before."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halffull.core.books import Replica
from halffull.core.contracts import Context
from halffull.core.values import Request
from halffull.policies.catalog import POLICIES
from halffull.policies.ranking import FEW, Ranked

NOW = 100.0


def books(replica: Replica, rng: random.Random) -> None:
    """Few values of each kind, so that there are ties of all kinds."""
    replica.in_flight = rng.randrange(3)
    replica.prefill_tokens = replica.waiting_prompt_tokens = rng.choice((0, 0, 100, 5_000, rng.randrange(100_000)))
    replica.decode_tokens = rng.choice((0, 900, 10_000))
    replica.kv_tokens = rng.choice((None, 1_000.0, 200_000.0))
    replica.prefill_rate = rng.choice((1_000.0, 9_999.0, 10_000.0, rng.uniform(10, 100_000)))
    replica.weight = rng.choice((0.1, 0.5, 1.0))
    replica.deference_s = rng.choice((0.0, 0.0, 0.1))


def worth(name: str, replica: Replica, own: int) -> tuple[float, ...]:
    if name == "least-requests":
        return (replica.in_flight / replica.weight,)
    wait = (replica.prefill_tokens + own) / replica.prefill_rate
    if replica.kv_tokens is not None:
        missing = replica.waiting_prompt_tokens + own - (replica.kv_tokens - replica.decode_tokens)
        wait = max(wait, missing / replica.kv_free_rate(NOW))
    return wait + replica.deference_s, replica.in_flight


@pytest.mark.parametrize("name", ["sal", "least-requests"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), own=st.integers(1, 50_000), size=st.integers(FEW + 1, FEW + 60))
def test_the_best_of_many_is_found(name: str, seed: int, own: int, size: int) -> None:
    rng = random.Random(seed)
    policy = POLICIES[name].make()
    assert isinstance(policy, Ranked)
    fleet = [Replica(f"r{number}", "10.0.0.1", 8000 + number) for number in range(size + 9)]
    for replica in fleet:
        books(replica, rng)
        policy.added(replica)
    for _ in range(4):
        for replica in rng.sample(fleet, 20):
            books(replica, rng)
            policy.changed(replica)
        gone = fleet.pop(rng.randrange(len(fleet)))
        policy.removed(gone)
        chosen = policy.choose(Request("id", NOW, own), fleet, Context(NOW, rng))

        assert chosen in fleet
        assert worth(name, chosen, own) == min(worth(name, replica, own) for replica in fleet)


@pytest.mark.parametrize("name", ["sal", "least-requests"])
def test_equals_are_chosen_alike(name: str) -> None:
    policy, rng = POLICIES[name].make(), random.Random(1)
    fleet = [Replica(f"r{number}", "10.0.0.1", 8000) for number in range(2 * FEW)]
    for replica in fleet:
        policy.added(replica)
    chosen = {policy.choose(Request("id", NOW, 1), fleet, Context(NOW, rng)).name for _ in range(2000)}

    assert len(chosen) == len(fleet)
