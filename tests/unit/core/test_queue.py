"""The order of the queue: classes first, callers in turn, the ordering within; leaving, bounds of time, reordering."""

import random
import weakref
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from halffull.core.contracts import Context, Ordering
from halffull.core.exchange import Exchange
from halffull.core.queue import Queue
from halffull.core.values import Request
from halffull.orderings.fcfs import Fcfs


class Shortest(Ordering):
    def key(self, request: Request, context: Context) -> float:
        return request.prompt_tokens


class Host:
    """Whoever carries an exchange out."""


def at(now: float) -> Context:
    return Context(now, random.Random(1))


def exchange(number: int, *, caller: str = "", priority: int = 0, tokens: int = 1) -> Exchange:
    return Exchange(Request(str(number), float(number), tokens, body_bytes=10, caller=caller, priority=priority))


def drain(queue: Queue, most: int = 1 << 30) -> list[str]:
    order: list[str] = []

    def take(offered: Exchange) -> bool:
        if len(order) < most:
            order.append(offered.request.id)
            return True
        return False

    queue.offer(take, 1, at(0.0))
    return order


def test_first_come_first_served_without_callers() -> None:
    queue = Queue(Fcfs())
    for number in (3, 1, 2):
        queue.push(exchange(number), at(10.0))

    assert drain(queue) == ["1", "2", "3"]
    assert (len(queue), queue.bytes) == (0, 0)


def test_a_lower_class_goes_first() -> None:
    queue = Queue(Fcfs())
    for number, priority in enumerate([1, 0, -1, 1, -1]):
        queue.push(exchange(number, priority=priority), at(0.0))

    assert drain(queue) == ["2", "4", "1", "0", "3"]


def test_callers_take_turns_whatever_one_of_them_queues() -> None:
    queue = Queue(Fcfs())
    for number in range(10):
        queue.push(exchange(number, caller="greedy"), at(0.0))
    for number in range(10, 13):
        queue.push(exchange(number, caller="modest"), at(0.0))

    assert drain(queue)[:6] == ["0", "10", "1", "11", "2", "12"]


def test_a_caller_that_comes_late_does_not_catch_up() -> None:
    queue = Queue(Fcfs())
    for number in range(20):
        queue.push(exchange(number, caller="a"), at(0.0))
    for _ in range(10):
        drain(queue, 1)
    for number in range(20, 40):
        queue.push(exchange(number, caller="b"), at(0.0))
    served = Counter("a" if int(drain(queue, 1)[0]) < 20 else "b" for _ in range(10))

    assert served == {"a": 5, "b": 5}


def test_without_fairness_callers_are_one() -> None:
    queue = Queue(Fcfs(), fair=False)
    for number in range(4):
        queue.push(exchange(number, caller="ab"[number // 2]), at(0.0))

    assert drain(queue) == ["0", "1", "2", "3"]


def test_the_ordering_rules_within_a_caller_and_can_be_changed() -> None:
    queue = Queue(Fcfs())
    for number, tokens in enumerate([5, 1, 3]):
        queue.push(exchange(number, tokens=tokens), at(0.0))
    queue.reorder(Shortest(), at(0.0), fair=True)

    assert drain(queue) == ["1", "2", "0"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.booleans()), max_size=60))
def test_whoever_leaves_is_not_served_and_all_others_are(entries: list[tuple[str, int, bool]]) -> None:
    queue = Queue(Fcfs())
    exchanges = [
        exchange(number, caller=caller, priority=priority) for number, (caller, priority, _) in enumerate(entries)
    ]
    for one in exchanges:
        queue.push(one, at(0.0))
    for one, (_, _, leaves) in zip(exchanges, entries, strict=True):
        if leaves:
            queue.leave(one)
    stay = {one.request.id for one, (_, _, leaves) in zip(exchanges, entries, strict=True) if not leaves}
    assert (len(queue), queue.bytes) == (len(stay), 10 * len(stay))
    order = drain(queue)

    assert len(order) == len(stay)
    assert set(order) == stay


def test_the_oldest_are_found_by_the_time_they_wait() -> None:
    queue = Queue(Fcfs())
    exchanges = [exchange(number) for number in range(5)]
    for number, one in enumerate(exchanges):
        queue.push(one, at(float(number)))
    queue.leave(exchanges[0])
    found = []
    for one in queue.entered_before(2.0):
        found.append(one.request.id)
        queue.leave(one)

    assert found == ["1", "2"]
    assert drain(queue) == ["3", "4"]


def test_before_a_newcomer_are_lower_classes_its_own_and_others_until_its_turn() -> None:
    queue = Queue(Fcfs())
    for number, (caller, priority) in enumerate([*[("a", 0)] * 10, *[("b", 0)] * 2, *[("c", -1)] * 3, *[("c", 1)] * 4]):
        queue.push(exchange(number, caller=caller, priority=priority), at(0.0))

    def ahead(caller: str, priority: int) -> int:
        return queue.ahead(exchange(99, caller=caller, priority=priority).request, 10.0, at(0.0))

    assert ahead("a", 0) == 3 + 10 + 2
    assert ahead("b", 0) == 3 + 2 + 3
    assert ahead("new", 0) == 3 + 2
    assert ahead("c", -1) == 3
    assert ahead("a", -2) == 0
    assert ahead("new", 2) == len(queue) == 19


@given(leaves=st.lists(st.booleans(), max_size=40), fair=st.booleans())
def test_first_come_first_served_all_that_wait_are_before_a_newcomer(leaves: list[bool], fair: bool) -> None:
    queue = Queue(Fcfs(), fair=fair)
    for number, gone in enumerate(leaves):
        one = exchange(number)
        queue.push(one, at(float(number)))
        if gone:
            queue.leave(one)
    newcomer = exchange(99).request

    assert queue.ahead(newcomer, 10.0, at(99.0)) == len(queue) == leaves.count(False)


def test_who_is_passed_over_keeps_place_and_turn() -> None:
    queue = Queue(Fcfs())
    for number, name in enumerate("aaabbc"):
        queue.push(exchange(number, caller=name), at(0.0))
    seen: list[str] = []

    def take(offered: Exchange) -> bool:
        seen.append(offered.request.id)
        return offered.request.id == "4"

    queue.offer(take, 4, at(0.0))

    assert seen == ["0", "3", "5", "1", "4", "2"][: len(seen)]
    assert "4" in seen or len(seen) == 4
    rest = drain(queue)
    assert rest[:2] == ["0", "3"]
    assert sorted(rest) == sorted({"0", "1", "2", "3", "4", "5"} - ({"4"} & set(seen)))


def test_a_key_that_grew_is_noticed_when_its_turn_comes() -> None:
    class Late(Ordering):
        def key(self, request: Request, context: Context) -> float:
            return request.arrived + (100.0 if context.now > 5 and request.id == "1" else 0.0)

    queue = Queue(Late())
    for number in (1, 2):
        queue.push(exchange(number), at(0.0))
    order: list[str] = []
    queue.offer(lambda offered: not order.append(offered.request.id), 1, at(6.0))

    assert order == ["2", "1"]


def test_those_that_leave_do_not_stay_in_memory_while_nothing_is_taken() -> None:
    queue = Queue(Fcfs())
    waits = [exchange(number, caller=str(number)) for number in range(10)]
    for one in waits:
        queue.push(one, at(0.0))
    left: weakref.WeakSet[Host] = weakref.WeakSet()
    for number in range(10, 5_000):
        gone = exchange(number, caller=str(number))
        gone.host = Host()
        left.add(gone.host)
        queue.push(gone, at(float(number)))
        queue.leave(gone)
    del gone

    assert len(left) < 1_500
    assert len(queue) == 10
    assert drain(queue) == [one.request.id for one in waits]
