"""Every ordering of the catalog, and what each promises: nobody is passed without end by those that come later."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halffull.core.books import Books, Replica
from halffull.core.contracts import Context, Ordering
from halffull.core.exchange import Exchange
from halffull.core.queue import Queue
from halffull.core.values import Request
from halffull.orderings.catalog import ORDERINGS
from halffull.orderings.deadline import DeadlineParameters

NOW = 100.0


def books(*, used: float = 0.0) -> Books:
    made = Books()
    replica = Replica("r0", "10.0.0.1", 8000)
    replica.kv_tokens, replica.decode_tokens = 1_000.0, round(1_000 * used)
    made.add(replica)
    return made


def context(now: float = NOW, *, used: float = 0.0, goal_s: float | None = None) -> Context:
    return Context(now, random.Random(1), books(used=used), goal_s)


def roomy(now: float) -> Context:
    """Return a context whose one replica has memory to spare."""
    made = context(now)
    for replica in made.books.replicas.values():
        replica.kv_tokens = 400_000.0
    return made


def request(number: int, tokens: int = 100, *, arrived: float = NOW, caller: str = "", priority: int = 0) -> Request:
    return Request(str(number), arrived, tokens, caller=caller, priority=priority)


def order(ordering: Ordering, requests: list[Request], now: Context) -> list[str]:
    queue = Queue(ordering, fair=False)
    for one in requests:
        queue.push(Exchange(one), now)
    found: list[str] = []
    queue.offer(lambda exchange: not found.append(exchange.request.id), 1, now)
    return found


@pytest.mark.parametrize("name", [name for name in ORDERINGS if name not in {"shortest-prompt", "adaptive-lifo"}])
@given(tokens=st.integers(1, 100_000), other=st.integers(1, 100_000), used=st.floats(0, 1))
def test_who_comes_much_later_does_not_pass(name: str, tokens: int, other: int, used: float) -> None:
    queue, now = Queue(ORDERINGS[name].make(), fair=False), context(used=used)
    early = request(1, tokens)
    late = request(2, other, arrived=NOW + 600.0 + 2 * 5.0 * now.prefill_s(early) + 0.1)
    queue.push(Exchange(early), now)
    queue.push(Exchange(late), context(late.arrived, used=used))

    assert offered(queue, context(late.arrived, used=used)) == ["1", "2"]


@pytest.mark.parametrize("name", ["larry", "shortest-prompt", "deadline", "priority", "srpt"])
def test_a_short_prompt_passes_a_long_one_that_came_just_before(name: str) -> None:
    long, short = request(1, 9_000), request(2, 10, arrived=NOW + 0.1)

    assert order(ORDERINGS[name].make(), [long, short], context(goal_s=5.0)) == ["2", "1"]
    assert order(ORDERINGS["fcfs"].make(), [long, short], context()) == ["1", "2"]


def test_larry_steps_back_further_when_memory_is_short() -> None:
    ordering, long = ORDERINGS["larry"].make(), request(1, 10_000)

    assert ordering.key(long, context(used=1.0)) - NOW == pytest.approx(2 * (ordering.key(long, context()) - NOW))


def test_deadline_puts_the_late_behind_and_notices_while_they_wait() -> None:
    ordering = ORDERINGS["deadline"].make(DeadlineParameters(ttft_seconds=1.0))
    queue = Queue(ordering, fair=False)
    for one in (request(1, arrived=NOW), request(2, arrived=NOW + 0.5)):
        queue.push(Exchange(one), context(NOW + 0.5))
    found: list[str] = []
    queue.offer(lambda exchange: not found.append(exchange.request.id), 1, context(NOW + 1.2))

    assert found == ["2", "1"]
    assert order(ordering, [request(1), request(2, arrived=NOW + 0.5)], context(NOW + 1.2, goal_s=9.0)) == ["1", "2"]


def offered(queue: Queue, now: Context, *, take: int = 0) -> list[str]:
    """Return who is offered, in order; the first `take` are taken."""
    seen: list[str] = []

    def taken(exchange: Exchange) -> bool:
        seen.append(exchange.request.id)
        return len(seen) <= take

    queue.offer(taken, 100, now)
    return seen


def test_deadline_gives_up_the_largest_prompt_when_not_all_can_be_in_time() -> None:
    ordering = ORDERINGS["deadline"].make(DeadlineParameters(kappa=0.0, ttft_seconds=2.0))
    queue = Queue(ordering, fair=False)
    sizes = (3_000, 9_000, 3_000, 3_000, 3_000)  # 10,000 tokens/s: 2.3 s with a step, 1.4 s without the second
    for number, tokens in enumerate(sizes):
        queue.push(Exchange(request(number, tokens, arrived=NOW + number / 100)), roomy(NOW))
    now = roomy(NOW + 0.1)

    assert offered(queue, now) == ["0", "2", "3", "4", "1"]
    assert [ordering.behind(request(number, tokens), now) for number, tokens in enumerate(sizes)] == [
        False,
        True,
    ] + 3 * [False]


def test_deadline_leaves_all_in_the_order_of_arrival_while_all_can_be_in_time() -> None:
    queue = Queue(ORDERINGS["deadline"].make(DeadlineParameters(kappa=0.0, ttft_seconds=2.0)), fair=False)
    for number, tokens in enumerate((2_000, 6_000, 2_000)):
        queue.push(Exchange(request(number, tokens, arrived=NOW + number / 100)), roomy(NOW))

    assert offered(queue, roomy(NOW + 0.1)) == ["0", "1", "2"]


def test_deadline_forgets_those_that_left() -> None:
    queue = Queue(ORDERINGS["deadline"].make(DeadlineParameters(kappa=0.0, ttft_seconds=2.0)), fair=False)
    for number in range(6):
        queue.push(Exchange(request(number, 2_500, arrived=NOW + number / 1000)), roomy(NOW))
    assert offered(queue, roomy(NOW + 0.001), take=6) == ["0", "1", "2", "3", "4", "5"]
    for number in range(6, 10):
        queue.push(Exchange(request(number, 2_500 + number, arrived=NOW + number / 1000)), roomy(NOW))

    assert offered(queue, roomy(NOW + 0.1)) == ["6", "7", "8", "9"]


@pytest.mark.parametrize(("tokens", "sequences"), [(2_000.0, 256), (400_000.0, 2)])
def test_deadline_counts_memory_and_places_as_it_counts_compute(tokens: float, sequences: int) -> None:
    now = roomy(NOW + 0.1)
    (replica,) = now.books.replicas.values()
    replica.kv_tokens, replica.max_sequences = tokens, sequences
    queue = Queue(ORDERINGS["deadline"].make(DeadlineParameters(kappa=0.0, ttft_seconds=2.0)), fair=False)
    for number, prompt in enumerate((1_500, 400, 400, 500)):
        queue.push(Exchange(request(number, prompt, arrived=NOW + number / 1000)), context())

    assert offered(queue, now)[:2] == ["1", "2"]


def test_priority_is_by_class() -> None:
    requests = [request(1, priority=1), request(2, arrived=NOW + 50, priority=-1)]

    assert order(ORDERINGS["priority"].make(), requests, context()) == ["2", "1"]


@pytest.mark.parametrize("name", ["srpt", "learned-rank"])
def test_callers_of_long_answers_step_back_also_right_after_a_swap(name: str) -> None:
    now = context()
    rng = random.Random(1)
    for number in range(400):
        chatty = number % 2 == 0
        asked = request(number, rng.randrange(50, 200), caller="chatty" if chatty else "brief")
        now.books.complete(asked, rng.randrange(800, 1200) if chatty else rng.randrange(5, 50))
    requests = [request(1, caller="chatty"), request(2, caller="brief", arrived=NOW + 1.0)]

    assert order(ORDERINGS[name].make(), requests, now) == ["2", "1"]


def backlog(number: int) -> Exchange:
    return Exchange(request(number, arrived=NOW + number, caller="ab"[number % 2]))


def test_adaptive_lifo_puts_those_that_came_just_now_first_once_somebody_has_waited_too_long() -> None:
    queue = Queue(ORDERINGS["adaptive-lifo"].make(), fair=False)
    exchanges = [Exchange(request(number, arrived=NOW + wait)) for number, wait in enumerate((0.0, 3.0, 19.5, 19.8))]
    for one in exchanges:
        queue.push(one, context(one.request.arrived))

    assert offered(queue, context(NOW + 19.9)) == ["0", "1", "2", "3"]
    assert offered(queue, context(NOW + 20.4)) == [
        "2",
        "3",
        "1",
        "0",
    ]  # who came in the last second, in order; then the newest
    assert offered(queue, context(NOW + 21.0)) == ["3", "2", "1", "0"]
    queue.leave(exchanges[0])  # nobody has waited for twenty seconds now
    assert offered(queue, context(NOW + 21.0)) == ["1", "2", "3"]


def test_callers_keep_their_turns_when_adaptive_lifo_turns() -> None:
    queue = Queue(ORDERINGS["adaptive-lifo"].make())
    for number in range(8):
        queue.push(backlog(number), context(NOW + number))
    found: list[str] = []

    def take(exchange: Exchange) -> bool:
        found.append(exchange.request.id)
        return len(found) in {1, 4}

    for now in (NOW + 8, NOW + 22):
        queue.offer(take, 2, context(now))

    assert found == ["0", "1", "2", "7", "6", "5"]


def test_one_that_comes_back_goes_before_the_newest() -> None:
    queue = Queue(ORDERINGS["adaptive-lifo"].make(), fair=False)
    for number in range(5):
        queue.push(backlog(number), context(NOW + number))
    returned = backlog(0)
    returned.attempts = 1
    queue.push(returned, context(NOW + 22))
    found: list[Exchange] = []
    queue.offer(lambda exchange: bool(found.append(exchange)), 1, context(NOW + 22))

    assert found == [returned]
    assert not queue.behind(returned, context(NOW + 22))


@pytest.mark.parametrize("name", ["adaptive-lifo", "deadline"])
def test_who_is_behind_is_passed_by_every_caller(name: str) -> None:
    queue = Queue(ORDERINGS[name].make())
    for number in range(6):
        queue.push(Exchange(request(number, arrived=NOW + number, caller=f"caller {number}")), context(NOW + number))
    fresh = request(6, arrived=NOW + 22, caller="caller 0")

    offered(queue, context(NOW + 22))
    assert queue.ahead(fresh, 10.0, context(NOW + 22)) == 0
    queue.push(Exchange(fresh), context(NOW + 22))
    assert offered(queue, context(NOW + 22))[0] == "6"


def test_one_that_would_be_behind_by_its_turn_is_the_last() -> None:
    queue = Queue(ORDERINGS["adaptive-lifo"].make())
    for number in range(20):
        queue.push(Exchange(request(number)), context())
    offered(queue, context(NOW + 21))
    for number in range(20, 25):
        queue.push(Exchange(request(number, arrived=NOW + 21)), context(NOW + 21))
    fresh, now = request(25, arrived=NOW + 21), context(NOW + 21)

    assert queue.ahead(fresh, 5.0, now) == 5  # after a second
    assert queue.ahead(fresh, 4.9, now) == 25


REQUESTS = st.tuples(
    st.integers(1, 20_000), st.sampled_from(["", "a", "b", "c"]), st.integers(-1, 1), st.floats(0, 30), st.booleans()
)


@pytest.mark.parametrize("name", ORDERINGS)
@given(waiting=st.lists(REQUESTS, max_size=30), newcomer=REQUESTS, fair=st.booleans(), taken=st.integers(0, 10))
def test_no_more_go_before_a_newcomer_than_were_counted(
    name: str, waiting: list[tuple], newcomer: tuple, fair: bool, taken: int
) -> None:
    """Whoever waits, since when and for how long, has gone or has left; drained at once, so that nobody's turn is late."""
    queue = Queue(ORDERINGS[name].make(), fair=fair)
    for number, (tokens, caller, priority, waited_s, leaves) in enumerate(sorted(waiting, key=lambda one: -one[3])):
        one = Exchange(request(number, tokens, arrived=NOW - waited_s, caller=caller, priority=priority))
        queue.push(one, roomy(NOW - waited_s))
        if leaves:
            queue.leave(one)
    offered(queue, roomy(NOW), take=taken)
    tokens, caller, priority, _, _ = newcomer
    last = request(99, tokens, caller=caller, priority=priority)
    ahead = queue.ahead(last, 1e9, roomy(NOW))
    queue.push(Exchange(last), roomy(NOW))

    assert offered(queue, roomy(NOW), take=99).index("99") <= ahead <= len(waiting)
