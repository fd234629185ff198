"""The fleet brings endpoints, the operator's balance and stale signals into the books."""

import asyncio
from typing import Any

import pytest

from halffull.api.router_config import Balance
from halffull.core.books import Books, Replica
from halffull.core.health import Verdict
from halffull.core.values import State
from halffull.router.fleet import Fleet
from halffull.router.sources.discovery import Endpoint


class World:
    """A fleet over books alone, with a clock that is set by hand."""

    def __init__(self) -> None:
        self.books = Books()
        self.now = 100.0
        self.followed: list[str] = []
        self.refreshed: list[str] = []
        self.fleet = Fleet(self.books, self, self, lambda: self.now)

    def add(self, replica: Replica) -> None:
        self.books.add(replica)

    def remove(self, replica: Replica) -> None:
        self.books.remove(replica)

    def refresh(self, replica: Replica) -> None:
        self.refreshed.append(replica.name)

    def added(self, replica: Replica) -> None:
        assert replica.name not in self.books.replicas, "capacities are set before the replica is a candidate"
        self.followed.append(replica.name)

    def removed(self, replica: Replica) -> None:
        self.followed.remove(replica.name)

    def found(self, **states: State) -> None:
        self.fleet.found({name: Endpoint(name, "10.0.0.1", 1, state) for name, state in states.items()})

    def seen(self) -> dict[str, Any]:
        return {name: (r.state.value, r.weight, r.suspended) for name, r in self.books.replicas.items()}

    def out(self) -> set[str]:
        return {name for name, replica in self.books.replicas.items() if replica.suspended}


@pytest.fixture
def world() -> World:
    return World()


def balance(valid_s: float = 60.0, **replicas: Any) -> Balance:
    return Balance.model_validate({"validSeconds": valid_s, "replicas": replicas})


def test_replicas_join_change_and_leave(world: World) -> None:
    assert not world.fleet.listed
    world.found(a=State.READY, b=State.DOWN)
    assert world.fleet.listed
    a = world.books.replicas["a"]
    world.found(a=State.DRAINING, c=State.READY)
    assert world.seen() == {"a": ("Draining", 1.0, False), "c": ("Ready", 1.0, False)}
    assert world.books.replicas["a"] is a
    assert world.followed == ["a", "c"]


def test_an_empty_list_counts_as_a_list(world: World) -> None:
    world.found()
    assert world.fleet.listed


def test_the_same_name_at_another_address_is_another_replica(world: World) -> None:
    world.found(a=State.READY)
    before = world.books.replicas["a"]
    world.fleet.found({"a": Endpoint("a", "10.0.0.2", 1, State.READY)})
    assert world.books.replicas["a"] is not before
    assert world.books.replicas["a"].host == "10.0.0.2"


async def test_weights_and_suspensions_apply_also_to_who_joins_later(world: World) -> None:
    world.found(a=State.READY)
    world.fleet.balance(balance(a={"weight": 0.5}, b={"suspended": True}, c={"drain": True}))
    world.found(a=State.READY, b=State.READY, c=State.READY)
    assert world.seen() == {"a": ("Ready", 0.5, False), "b": ("Ready", 1.0, True), "c": ("Draining", 1.0, False)}


async def test_weights_and_suspensions_lapse_but_drains_stay(world: World) -> None:
    world.found(a=State.READY, b=State.READY)
    world.fleet.balance(balance(0.01, a={"weight": 0.5, "suspended": True}, b={"drain": True}))
    async with asyncio.timeout(30):
        while world.out():
            await asyncio.sleep(0.01)
    assert world.seen() == {"a": ("Ready", 1.0, False), "b": ("Draining", 1.0, False)}
    assert world.refreshed[-2:] == ["a", "b"]


async def test_a_new_balance_renews_the_time(world: World) -> None:
    world.found(a=State.READY)
    world.fleet.balance(balance(0.01, a={"weight": 0.5}))
    world.fleet.balance(balance(60, a={"weight": 0.4}))
    await asyncio.sleep(0.05)
    assert world.books.replicas["a"].weight == 0.4


async def test_at_most_half_of_the_fleet_is_taken_out(world: World) -> None:
    world.found(a=State.READY, b=State.READY, c=State.READY)
    world.fleet.balance(balance(**{name: {"suspended": True} for name in "abc"}))
    assert world.out() == {"a"}


def test_stale_replicas_are_excluded_where_wished_and_come_back(world: World) -> None:
    world.found(a=State.READY, b=State.READY, silent=State.READY, d=State.READY)
    for name in "ab":
        world.books.replicas[name].signals_at = 99.0
    world.books.replicas["d"].signals_at = 90.0
    states = [world.fleet.signals_state(replica) for replica in world.books.replicas.values()]
    assert states == ["fresh", "fresh", "none", "stale"]
    world.fleet.check_signals()
    assert world.out() == set()
    world.fleet.judge_signals(5.0, exclude=True)
    world.fleet.check_signals()
    assert world.out() == {"d"}
    world.books.replicas["d"].signals_at = 99.0
    world.fleet.check_signals()
    assert world.out() == set()


def test_replicas_are_made_anew_when_engines_are_called_in_another_way(world: World) -> None:
    world.found(a=State.READY)
    before = world.books.replicas["a"]
    world.fleet.renew()
    assert world.books.replicas["a"] is not before
    assert world.followed == ["a"]


async def test_a_suspended_replica_comes_back_with_one_request_at_a_time(world: World) -> None:
    world.found(a=State.READY, b=State.READY)

    world.fleet.balance(balance(a={"suspended": True}))
    assert world.books.replicas["a"].suspended
    world.fleet.balance(Balance())

    assert not world.books.replicas["a"].suspended
    assert world.books.replicas["a"].health.verdict is Verdict.TRIAL
    assert world.books.replicas["b"].health.verdict is Verdict.WELL


async def test_metrics_that_are_not_believed_are_believed_again_when_the_operator_is_gone(world: World) -> None:
    world.found(a=State.READY, b=State.READY)

    world.fleet.balance(balance(0.01, a={"distrusted": True}))
    assert [replica.distrusted for replica in world.books.replicas.values()] == [True, False]

    async with asyncio.timeout(10):
        while world.books.replicas["a"].distrusted:
            await asyncio.sleep(0.01)
