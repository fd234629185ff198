"""Requests for a LoRA adapter go where it is served, rather where it is held, unless that replica is overloaded for it."""

import random

import pytest

from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher, Limits
from halffull.core.exchange import Phase
from halffull.core.gate import GATES, KvParameters, LimitParameters
from halffull.core.values import Request, Signals
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES

GATE = {"limit": GATES["limit"].make(LimitParameters(4)), "kv": GATES["kv"].make(KvParameters())}


class Fleet:
    """A dispatcher before replicas, of which `served` says the adapters."""

    def __init__(self, *served, policy="least-requests", gate="limit"):
        self.dispatcher = Dispatcher(
            POLICIES[policy].make(), ORDERINGS["fcfs"].make(), GATE[gate], random.Random(1), Limits()
        )
        self.replicas = []
        for number, names in enumerate(served):
            replica = Replica(f"r{number}", "h", number, max_sequences=8)
            replica.models, replica.adapters.served = ("m", *names), tuple(names)
            self.dispatcher.add(replica, 0.0)
            self.replicas.append(replica)

    def send(self, adapter="", tokens=10):
        exchange = self.dispatcher.arrive(Request("id", 0.0, tokens, adapter=adapter), 0.0)
        if exchange.phase is Phase.CONNECTING:
            self.dispatcher.sent(exchange, 0.0)
        return exchange

    def names(self, adapter, count):
        return [self.send(adapter).replica.name for _ in range(count)]


@pytest.mark.parametrize("gate", GATE)
def test_only_replicas_that_serve_it_get_it(gate):
    fleet = Fleet([], ["a"], [], gate=gate)
    assert set(fleet.names("a", 3)) == {"r1"}


def test_it_waits_for_one_that_serves_it_and_holds_up_nobody_else():
    fleet = Fleet(["a"], [])
    running = [fleet.send("a") for _ in range(4)]
    waiting = fleet.send("a")
    assert waiting.phase is Phase.QUEUED
    assert fleet.send().replica.name == "r1"
    fleet.dispatcher.started(running[0], 1.0)
    assert fleet.dispatcher.finished(running[0], 2.0) == [waiting]
    assert waiting.replica.name == "r0"


def test_where_nobody_is_known_to_serve_it_the_engine_judges():
    assert Fleet([], []).send("a").replica is not None


def test_the_replica_that_holds_it_is_preferred_until_it_has_more_than_its_share():
    fleet = Fleet(["a"], ["a"], ["a"], gate="kv")
    names = fleet.names("a", 12)
    assert names[:4] == names[:1] * 4, "the first one holds it from now on"
    assert max(names.count(name) for name in set(names)) <= 5, "but does not get all"


def test_what_the_engine_says_counts_too():
    fleet = Fleet(["a", "b"], ["a", "b"], ["a", "b"])
    fleet.replicas[2].signals = Signals(adapters=("b",), adapter_slots=2)
    assert fleet.send("b").replica.name == "r2"


def test_an_adapter_that_was_pushed_out_is_held_no_longer():
    fleet = Fleet([*"abc"], [*"abc"])
    for replica in fleet.replicas:
        replica.signals = Signals(adapter_slots=1)
    first = fleet.send("a").replica
    assert "a" in first.adapters
    fleet.dispatcher.remove(next(r for r in fleet.replicas if r is not first))
    fleet.send("b")
    assert ("a" in first.adapters, "b" in first.adapters) == (False, True)


def test_requests_for_the_model_itself_go_anywhere():
    fleet = Fleet(["a"], [], [])
    assert len({fleet.send().replica.name for _ in range(3)}) == 3
