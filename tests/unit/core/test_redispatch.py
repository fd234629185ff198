"""Re-dispatch rule by rule: what moves, where to, how often, and what stays."""

import random
from dataclasses import replace

import pytest

from halffull.core.books import Replica, prefill_work
from halffull.core.dispatch import Dispatcher
from halffull.core.errors import Failure, Reason
from halffull.core.exchange import Exchange, Phase
from halffull.core.faults import Fault
from halffull.core.gate import GATES
from halffull.core.limits import Limits
from halffull.core.redispatch import EVERY_S, LEAST, MOST, SHARE_PERCENT, start_s
from halffull.core.values import Request, State
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES
from halffull.policies.llumnix import LlumnixParameters

PROMPT = 5_000
"""tokens; half a second of work"""


class World:
    """A dispatcher before some replicas that never answer by themselves."""

    def __init__(self, *names: str, policy: str = "llumnix", parameters: object = None) -> None:
        self.now = 100.0
        self.dispatcher = Dispatcher(
            POLICIES[policy].make(parameters),
            ORDERINGS["fcfs"].make(),
            GATES["none"].make(),
            random.Random(1),
            Limits(),
        )
        self.replicas = {name: Replica(name, "127.0.0.1", 8000) for name in names}
        for replica in self.replicas.values():
            self.dispatcher.add(replica, self.now)

    def send(self, count: int, to: str, **fields: object) -> list[Exchange]:
        """Let requests arrive while only `to` is ready."""
        others = [replica for name, replica in self.replicas.items() if name != to]
        states = [replica.state for replica in others]
        self.set(State.DOWN, others)
        given = []
        for _ in range(count):
            request = replace(Request("r", self.now, PROMPT), **fields)
            given.append(self.dispatcher.arrive(request, self.now))
            self.dispatcher.sent(given[-1], self.now)
        for replica, state in zip(others, states, strict=True):
            self.set(state, [replica])
        return given

    def set(self, state: State, replicas: list[Replica]) -> None:
        for replica in replicas:
            replica.state = state
            self.dispatcher.refresh(replica, self.now)

    def tick(self, seconds: float = EVERY_S) -> list[Exchange]:
        """Let time pass; what was moved is sent at once."""
        self.now += seconds
        moved = [e for e in self.dispatcher.tick(self.now) if e.phase is Phase.CONNECTING]
        for exchange in moved:
            self.dispatcher.sent(exchange, self.now)
        return moved


def at(world: World, exchanges: list[Exchange]) -> list[str]:
    return [exchange.replica.name for exchange in exchanges if exchange.replica is not None]


def test_the_end_of_a_long_queue_goes_to_a_replica_that_is_idle() -> None:
    world = World("a", "b")
    sent = world.send(8, to="a")

    moved = world.tick()

    assert moved == sent[: -len(moved) - 1 : -1]
    assert at(world, sent) == ["a"] * (8 - len(moved)) + ["b"] * len(moved)
    assert 2 <= len(moved) <= 4  # 3.8 s of work there, the moves share it
    assert all(exchange.moves == 1 and exchange.attempts == 2 for exchange in moved)


def test_nothing_moves_that_gains_less_than_the_margin() -> None:
    world = World("a", "b")
    world.send(6, to="a")
    world.send(5, to="b")

    assert [world.tick() for _ in range(5)] == [[]] * 5


def test_policies_that_do_not_ask_for_it_move_nothing() -> None:
    for world in (World("a", "b", policy="sal"), World("a", "b", parameters=LlumnixParameters(max_moves=0))):
        world.send(8, to="a")

        assert world.tick() == []


@pytest.mark.parametrize(
    "fields", [{"stream": False}, {"resendable": False}, {"pinned": "a"}], ids=["plain", "once", "pinned"]
)
def test_what_cannot_be_moved_stays(fields: dict[str, object]) -> None:
    world = World("a", "b")
    sent = world.send(8, to="a", **fields)

    assert world.tick() == []
    assert at(world, sent) == ["a"] * 8


def test_a_replica_that_makes_nothing_of_its_queue_is_taken_for_slow() -> None:
    world = World("a", "b")
    sent = world.send(1, to="a")

    assert world.tick(1.0) == []  # 0.55 s of work, a step of 0.2 s: 0.25 s late are no reason yet
    while not (moved := world.tick()):
        assert world.now < 110
    assert moved == sent


@pytest.mark.parametrize("policy", ["sal", "round-robin", "halffull"])
@pytest.mark.parametrize("gone", ["drained", "down", "left"])
def test_a_replica_that_leaves_gives_away_what_has_not_started(policy: str, gone: str) -> None:
    world = World("a", "b", "c", policy=policy)
    world.set(State.DOWN, [world.replicas["c"]])
    sent = world.send(3, to="a")
    plain = world.send(2, to="a", stream=False)
    started = world.send(1, to="a")
    world.dispatcher.started(started[0], world.now)
    if gone == "left":
        world.dispatcher.remove(world.replicas["a"])
    else:
        world.set(State.DRAINING if gone == "drained" else State.DOWN, [world.replicas["a"]])

    assert world.tick(EVERY_S) == [*sent, *plain]
    assert at(world, [*sent, *plain]) == ["b"] * 5
    assert started[0].replica is world.replicas["a"]


def test_a_plain_answer_that_is_taken_to_have_started_ends_where_it_is() -> None:
    world = World("a", "b", policy="sal")
    plain = world.send(1, to="a", stream=False)
    world.tick(5.0)
    assert plain[0].presumed
    world.set(State.DRAINING, [world.replicas["a"]])

    assert world.tick() == []


def test_a_request_that_is_taken_to_have_started_and_goes_out_on_another_connection_waits_there_no_more() -> None:
    world = World("a", "b", policy="sal")
    gone, failed = world.send(2, to="a", stream=False)
    world.tick(5.0)
    for exchange in (gone, failed):
        world.dispatcher.sent(exchange, world.now)
    world.dispatcher.cancel(gone, world.now)
    world.dispatcher.not_started(failed, Failure(Reason.ENGINE_BROKEN, ""), Fault.LOST, world.now)
    assert (gone.phase, at(world, [failed])) == (Phase.DONE, ["b"])
    world.dispatcher.remove(world.replicas["a"])

    assert world.tick() == []
    assert (gone.phase, at(world, [failed])) == (Phase.DONE, ["b"])


def test_a_guess_of_when_an_answer_starts_holds_for_the_replica_that_it_was_made_of() -> None:
    world = World("a", "b", policy="sal")
    plain = world.send(1, to="a", stream=False)[0]
    guess = PROMPT / world.replicas["a"].prefill_rate
    world.tick(0.8 * guess)
    world.dispatcher.not_started(plain, Failure(Reason.ENGINE_BUSY, ""), Fault.BUSY, world.now)
    world.dispatcher.sent(plain, world.now)
    assert plain.replica is world.replicas["b"]

    world.tick(0.4 * guess)
    assert not plain.presumed, "it waits there for less than half the time that its prompt takes"
    world.tick(guess)
    assert plain.presumed


def test_a_suspended_replica_gives_away_streams_alone() -> None:
    world = World("a", "b", policy="sal")
    sent, _ = world.send(2, to="a"), world.send(2, to="a", stream=False)
    world.replicas["a"].suspended = True
    world.dispatcher.refresh(world.replicas["a"], world.now)

    assert world.tick() == sent


def test_without_another_replica_everything_stays() -> None:
    world = World("a")
    world.send(3, to="a")
    world.set(State.DRAINING, [world.replicas["a"]])

    assert world.tick() == []


def test_one_request_is_moved_at_most_three_times() -> None:
    world = World("a", "b", policy="sal")
    exchange = world.send(1, to="a")[0]
    for _ in range(10):
        here = exchange.replica
        assert here is not None
        world.set(State.DRAINING, [here])
        world.tick()
        world.set(State.READY, [here])

    assert exchange.moves == MOST
    assert exchange.phase is Phase.WAITING


def test_moves_for_time_are_a_bounded_share_of_requests() -> None:
    world = World("a", "b")
    sent = world.send(200, to="a")

    moved = [exchange for _ in range(20) for exchange in world.tick()]

    assert LEAST < len(moved) <= SHARE_PERCENT / 100 * len(sent)


def test_nothing_moves_for_time_while_requests_wait_in_the_router() -> None:
    world = World("a", "b")
    world.send(8, to="a")
    moves, context = world.dispatcher._redispatch.moves, world.dispatcher.at(world.now)

    context.now += EVERY_S
    assert list(moves(world.dispatcher._placement, context, queued=True)) == []
    context.now += EVERY_S
    assert next(moves(world.dispatcher._placement, context, queued=False))[1] is world.replicas["b"]


def test_the_time_to_the_start_counts_work_memory_and_places() -> None:
    world = World("a", policy="sal")
    replica, context = world.replicas["a"], world.dispatcher.at(world.now)
    world.dispatcher.started(world.send(1, to="a")[0], world.now)
    replica.prefill_rate = 1_000.0

    assert start_s(replica, context, work=3_000, tokens=0, requests=1) == pytest.approx(3.0)

    lasting = context.books.decode_left_s
    replica.kv_tokens = 6_000.0
    assert start_s(replica, context, work=0, tokens=3_500, requests=2) == pytest.approx(
        (3_500 - 1_000) / 5_000 * lasting
    )
    replica.kv_tokens, replica.max_sequences = None, 1
    assert start_s(replica, context, work=0, tokens=0, requests=3) == pytest.approx(2 * lasting)


def test_what_a_replica_stands_still_at_is_not_taken_for_done() -> None:
    world = World("a", policy="sal")
    replica, sent_at = world.replicas["a"], world.now
    replica.prefill_rate = 1_000.0
    first, second = world.send(2, to="a")
    work = prefill_work(PROMPT)
    due = work + replica.max_batched_tokens  # by then, a first token has come

    assert replica.first_work == work
    assert replica.prefill_s(0, sent_at + 1) == pytest.approx(2 * work / 1_000 - 1)
    assert replica.prefill_s(-work, sent_at + 1) == pytest.approx(work / 1_000 - 1)
    assert replica.work_left(sent_at + 100) == 2 * work - due
    late = 100 - due / 1_000
    assert replica.prefill_s(0, sent_at + 100) == pytest.approx(late + (2 * work - due) * 100 / due)

    world.dispatcher.cancel(first, world.now)
    assert replica.first_work == work
    world.dispatcher.started(second, world.now)
    assert replica.first_work == 0
    assert replica.prefill_s(0, sent_at + 100) == 0


def test_a_stream_that_goes_on_elsewhere_has_begun_once() -> None:
    world = World("a", "b", policy="sal")
    stream = world.send(1, to="a")[0]
    world.dispatcher.started(stream, world.now)
    world.dispatcher.not_started(stream, Failure(Reason.ENGINE_BROKEN, ""), Fault.LOST, world.now + 60)
    world.dispatcher.sent(stream, world.now + 60)
    world.dispatcher.started(stream, world.now + 61)

    assert at(world, [stream]) == ["b"]
    assert world.dispatcher.books.first_tokens == 1
    assert [seconds for _, seconds in world.dispatcher.books.started] == [0.0]
