"""The gate of late binding: what it lets in, its valve, and when a request is held for a better replica."""

import random

import pytest

from halffull.core.books import Replica
from halffull.core.contracts import Context, Policy
from halffull.core.exchange import Exchange
from halffull.core.gate import GATES, KvParameters
from halffull.core.placement import Placement
from halffull.core.values import Request, Signals
from halffull.policies.catalog import POLICIES

NOW = 100.0


def request(tokens: int = 100) -> Request:
    return Request("id", NOW, tokens)


def replica(name: str = "r0", *, held: int = 100, waiting: int = 0) -> Replica:
    made = Replica(name, "10.0.0.1", 8000, max_batched_tokens=1000)
    made.kv_tokens = 10_000
    made.sent(held, NOW)
    made.started(held, NOW)
    if waiting:
        made.sent(waiting, NOW)
    return made


def test_it_closes_at_two_steps_of_queued_work_and_opens_as_the_work_is_done() -> None:
    gate = GATES["kv"].make()

    assert gate.admits(replica(waiting=1900), request(), NOW)
    assert not gate.admits(replica(waiting=2100), request(), NOW)
    assert gate.admits(replica(waiting=2100), request(), NOW + 0.1)
    assert GATES["kv"].make(KvParameters(steps=4)).admits(replica(waiting=2100), request(), NOW)


def test_a_replica_that_stands_still_is_not_taken_to_have_worked() -> None:
    stalled = replica(waiting=4_000)
    stalled.first_work = 500

    assert not GATES["kv"].make().admits(stalled, request(), NOW + 60)


@pytest.mark.parametrize(("held", "admitted"), [(9_000, True), (9_299, True), (9_301, False)])
def test_it_keeps_a_rest_of_the_memory_free(held: int, admitted: bool) -> None:
    assert GATES["kv"].make().admits(replica(held=held), request(100), NOW) is admitted


def test_an_empty_replica_takes_whatever_comes() -> None:
    assert GATES["kv"].make().admits(Replica("r0", "10.0.0.1", 8000), request(10**9), NOW)


def test_it_minds_the_sequence_limit_without_a_known_capacity() -> None:
    full = Replica("r0", "10.0.0.1", 8000, max_sequences=1)
    full.sent(10, NOW)

    assert not GATES["kv"].make().admits(full, request(), NOW)


@pytest.mark.parametrize(
    ("waiting", "usage", "age", "admitted"),
    [
        (0, 0.5, -1.0, True),
        (1, 0.5, -1.0, False),
        (0, 0.965, -1.0, False),
        (0, 0.5, 1.0, False),
        (None, 0.5, -1.0, False),
    ],
)
def test_the_valve_believes_the_engine_where_it_was_asked_after_the_last_request(
    waiting: float | None, usage: float, age: float, admitted: bool
) -> None:
    closed = replica(held=9_900)
    closed.signals, closed.signals_at = Signals(running=1, waiting=waiting, kv_usage=usage), NOW - age

    assert GATES["kv"].make().admits(closed, request(), NOW + 2) is admitted


def placed(policy: Policy, *fleet: Replica) -> Replica | None:
    placement = Placement(policy, GATES["kv"].make())
    for one in fleet:
        placement.admit(one, able=True)
    return placement.choose(Exchange(request(1000)), Context(NOW, random.Random(1)))


def test_a_request_waits_for_a_replica_that_is_much_better_and_will_be_ready_soon() -> None:
    for name, expected in (("halffull", None), ("least-requests", "slow")):
        busy, slow = replica("busy", waiting=2100), replica("slow")
        busy.prefill_rate, slow.prefill_rate = 10_000, 500
        found = placed(POLICIES[name].make(), busy, slow)

        assert (found and found.name) == expected


def test_it_does_not_wait_for_a_little() -> None:
    busy, slow = replica("busy", waiting=2100), replica("slow")
    busy.prefill_rate, slow.prefill_rate = 10_000, 8_500

    assert placed(POLICIES["halffull"].make(), busy, slow) is slow


def test_it_does_not_wait_for_memory_that_others_wait_for_too() -> None:
    full, slow = replica("full", held=9_900), replica("slow")
    full.prefill_rate, slow.prefill_rate = 10_000, 1_000

    assert placed(POLICIES["halffull"].make(), full, slow) is slow
