"""Who is refused by the router's queue: by the wait of its place, by bounds; and when it is told to come again."""

import random

import pytest

from halffull.core.admission import Admission
from halffull.core.contracts import Context
from halffull.core.errors import Failure, Reason
from halffull.core.exchange import Exchange
from halffull.core.limits import Limits
from halffull.core.queue import Queue
from halffull.core.values import Request
from halffull.orderings.catalog import ORDERINGS

PER_SECOND = 2
LIMITS = Limits(queue_requests=1000, queue_timeout_s=30.0, queue_bytes=10_000)


class Backlog:
    """A queue of which two a second are released, where 100 have waited for 25 s."""

    def __init__(self, ordering: str) -> None:
        self.queue = Queue(ORDERINGS[ordering].make())
        self.admission = Admission()
        self.context = Context(0.0, random.Random(1))
        for _ in range(100):
            self.push(Request("", 0.0, 10, body_bytes=10))
        for number in range(25 * PER_SECOND):
            self.context.now = (number + 1) / PER_SECOND
            self.admission.released(self.context.now)
        self.queue.offer(lambda _: False, 1, self.context)

    def push(self, request: Request) -> None:
        self.queue.push(Exchange(request), self.context)

    def refusal(self, *, priority: int = 0, body_bytes: int = 10, limits: Limits = LIMITS) -> Failure | None:
        newcomer = Request("", self.context.now, 10, body_bytes=body_bytes, priority=priority)
        return self.admission.refusal(newcomer, self.queue, limits, self.context)


def test_behind_a_backlog_that_takes_longer_than_the_time_out_one_is_refused() -> None:
    refusal = Backlog("fcfs").refusal()

    assert refusal is not None
    assert refusal.reason is Reason.QUEUE_FULL
    assert refusal.retry_after_s == pytest.approx(100 / PER_SECOND, rel=0.2)


def test_who_goes_before_the_backlog_is_taken() -> None:
    assert Backlog("adaptive-lifo").refusal() is None
    assert Backlog("fcfs").refusal(priority=-1) is None
    assert Backlog("fcfs").refusal(priority=1) is not None


def test_in_a_backlog_no_more_are_taken_than_can_go_at_once() -> None:
    backlog = Backlog("adaptive-lifo")
    taken = 0
    while backlog.refusal() is None:
        backlog.push(Request("", backlog.context.now, 10, body_bytes=10))
        taken += 1

    assert 1 <= taken <= PER_SECOND + 1


@pytest.mark.parametrize("limits", [Limits(queue_requests=100), Limits(queue_bytes=1005)])
@pytest.mark.parametrize("ordering", ["fcfs", "adaptive-lifo"])
def test_a_full_queue_takes_nobody_and_says_when_it_is_empty(ordering: str, limits: Limits) -> None:
    refusal = Backlog(ordering).refusal(limits=limits)

    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx(100 / PER_SECOND, rel=0.2)


def test_it_is_told_to_come_again_within_a_minute() -> None:
    backlog = Backlog("fcfs")
    for _ in range(500):
        backlog.push(Request("", 0.0, 10))
    refusal = backlog.refusal()

    assert refusal is not None
    assert refusal.retry_after_s == 60
