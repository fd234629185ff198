"""Every policy of the catalog, and what each promises: a candidate is chosen, the same one for the same seed; shares follow
weights; the better replica wins where the policy says which one that is."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halffull.core.books import Books, Replica
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request, Signals
from halffull.policies.catalog import POLICIES
from halffull.policies.power_of_two import PowerOfTwoParameters
from halffull.policies.sal import SalParameters

NOW = 100.0


@st.composite
def replicas(draw: st.DrawFn) -> list[Replica]:
    fleet = []
    for number in range(draw(st.integers(1, 8))):
        replica = Replica(f"r{number}", "10.0.0.1", 8000 + number)
        replica.in_flight = draw(st.integers(0, 300))
        replica.prefill_tokens = replica.waiting_prompt_tokens = draw(st.integers(0, 100_000))
        replica.decode_tokens = draw(st.integers(0, 500_000))
        replica.kv_tokens = draw(st.none() | st.floats(1_000, 500_000))
        replica.prefill_rate = draw(st.floats(10, 100_000))
        replica.weight = draw(st.floats(0.1, 1))
        fleet.append(replica)
    return fleet


def choose(policy: Policy, fleet: list[Replica], *, tokens: int = 100, seed: int = 1) -> Replica:
    return policy.choose(Request("id", NOW, tokens), fleet, Context(NOW, random.Random(seed)))


def fleet_of(*loads: int) -> list[Replica]:
    fleet = [Replica(f"r{number}", "10.0.0.1", 8000 + number) for number, _ in enumerate(loads)]
    for replica, load in zip(fleet, loads, strict=True):
        for _ in range(load):
            replica.sent(100, NOW)
    return fleet


@pytest.mark.parametrize("name", POLICIES)
@given(fleet=replicas(), tokens=st.integers(1, 100_000), seed=st.integers(0, 9))
def test_a_candidate_is_chosen_and_the_same_for_the_same_seed(
    name: str, fleet: list[Replica], tokens: int, seed: int
) -> None:
    first = choose(POLICIES[name].make(), fleet, tokens=tokens, seed=seed)
    second = choose(POLICIES[name].make(), fleet, tokens=tokens, seed=seed)

    assert first in fleet
    assert first is second


@pytest.mark.parametrize("name", ["random", "round-robin"])
def test_shares_follow_weights(name: str) -> None:
    fleet = fleet_of(0, 0, 0)
    fleet[2].weight = 0.5
    policy, context = POLICIES[name].make(), Context(NOW, random.Random(3))
    shares = Counter(policy.choose(Request("id", NOW, 1), fleet, context).name for _ in range(5000))

    assert shares["r0"] / 5000 == pytest.approx(0.4, abs=0.03)
    assert shares["r2"] / 5000 == pytest.approx(0.2, abs=0.03)


def test_round_robin_takes_turns_and_lets_newcomers_in_without_a_burst() -> None:
    fleet = fleet_of(0, 0, 0)
    policy, context = POLICIES["round-robin"].make(), Context(NOW, random.Random(3))
    turns = [policy.choose(Request("id", NOW, 1), fleet, context).name for _ in range(300)]
    assert turns[:6] == ["r0", "r1", "r2", "r0", "r1", "r2"]
    fleet.append(Replica("r9", "10.0.0.1", 9000))
    turns = [policy.choose(Request("id", NOW, 1), fleet, context).name for _ in range(8)]

    assert Counter(turns) == dict.fromkeys(["r0", "r1", "r2", "r9"], 2)


@given(loads=st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_least_requests_takes_the_fewest(loads: list[int]) -> None:
    assert choose(POLICIES["least-requests"].make(), fleet_of(*loads)).in_flight == min(loads)


def test_least_requests_counts_for_the_weight() -> None:
    fleet = fleet_of(4, 3)
    fleet[1].weight = 0.5

    assert choose(POLICIES["least-requests"].make(), fleet).name == "r0"


def test_power_of_two_with_many_draws_is_least_requests() -> None:
    policy = POLICIES["power-of-two"].make(PowerOfTwoParameters(choices=16))
    chosen = {choose(policy, fleet_of(5, 1, 7), seed=seed).name for seed in range(20)}

    assert chosen == {"r1"}


def test_sal_counts_queued_tokens_not_requests() -> None:
    fleet = fleet_of(0, 3)
    fleet[0].sent(10_000, NOW)

    assert choose(POLICIES["sal"].make(), fleet).name == "r1"


def test_sal_knows_speed() -> None:
    fleet = fleet_of(2, 4)
    fleet[0].prefill_rate = 1_000
    fleet[1].prefill_rate = 10_000

    assert choose(POLICIES["sal"].make(), fleet).name == "r1"


def test_sal_avoids_a_replica_without_memory_unless_told_not_to() -> None:
    fleet = fleet_of(0, 1)
    fleet[0].kv_tokens, fleet[0].decode_tokens = 1_000, 990
    fleet[1].kv_tokens = 1_000

    assert choose(POLICIES["sal"].make(), fleet).name == "r1"
    assert choose(POLICIES["sal"].make(SalParameters(memory_weight=0)), fleet).name == "r0"


def test_sal_breaks_ties_by_count_then_at_random() -> None:
    fleet = fleet_of(0, 0, 0)
    fleet[0].in_flight = 1
    chosen = Counter(choose(POLICIES["sal"].make(), fleet, seed=seed).name for seed in range(40))

    assert set(chosen) == {"r1", "r2"}


def told(
    policy: Policy, fleet: list[Replica], request: Request, books: Books | None = None, *, now: float = NOW
) -> str:
    return policy.choose(request, fleet, Context(now, random.Random(1), books or Books())).name


def sharing(fleet: list[Replica], name: str, *, prompt: int = 1000, blocks: int = 8) -> tuple[Books, Request]:
    """Books in which the replica `name` holds the first `blocks` of ten blocks of a prompt, and that prompt."""
    books = Books()
    for replica in fleet:
        books.add(replica)
    before = Request("before", NOW, prompt, blocks=tuple(range(blocks)), block_tokens=prompt // 10)
    books.prefixes.insert(name, before, None)
    return books, Request("id", NOW, prompt, blocks=tuple(range(10)), block_tokens=prompt // 10)


def test_least_kv_goes_by_signals_and_by_the_books_without() -> None:
    fleet = fleet_of(5, 1)
    for replica, usage in zip(fleet, (0.1, 0.8), strict=True):
        replica.kv_tokens = 10_000
        replica.signals, replica.signals_at = Signals(kv_usage=usage), NOW
    policy, request = POLICIES["least-kv"].make(), Request("id", NOW, 10)

    assert told(policy, fleet, request) == "r0"
    stale = Context(NOW + 9, random.Random(1), signals_s=5.0)
    assert policy.choose(request, fleet, stale).name == "r1"


def test_least_prefill_counts_what_waits_and_least_tokens_what_is_held() -> None:
    fleet = fleet_of(1, 2)
    fleet[0].sent(5000, NOW)
    fleet[0].started(5000, NOW)

    assert choose(POLICIES["least-prefill"].make(), fleet).name == "r0"
    assert choose(POLICIES["least-tokens"].make(), fleet).name == "r1"


def test_llumnix_wants_free_memory_per_request_and_idle_replicas_first() -> None:
    fleet = fleet_of(2, 4)
    fleet[0].kv_tokens, fleet[1].kv_tokens = 1_000, 10_000
    assert choose(POLICIES["llumnix"].make(), fleet).name == "r1"

    fleet = fleet_of(2, 0)
    assert choose(POLICIES["llumnix"].make(), fleet).name == "r1"


@pytest.mark.parametrize("name", ["kv-cost", "weighted-scores", "prefix-affinity", "preble", "least-prefill"])
def test_a_cached_prefix_wins_where_loads_are_equal(name: str) -> None:
    fleet = fleet_of(1, 1, 1)
    books, request = sharing(fleet, "r2")

    assert told(POLICIES[name].make(), fleet, request, books) == "r2"


@pytest.mark.parametrize("name", ["kv-cost", "prefix-affinity", "least-prefill"])
def test_a_cached_prefix_does_not_outweigh_everything(name: str) -> None:
    fleet = fleet_of(0, 0, 60)
    books, request = sharing(fleet, "r2")

    assert told(POLICIES[name].make(), fleet, request, books) != "r2"


def test_preble_does_not_follow_a_match_to_the_hottest_replica() -> None:
    fleet = fleet_of(0, 0)
    books, request = sharing(fleet, "r1", prompt=50_000)
    policy = POLICIES["preble"].make()
    chosen = [told(policy, fleet, request, books) for _ in range(20)]

    assert chosen[0] == "r1"
    assert "r0" in chosen


def test_prefix_affinity_fills_caches_evenly() -> None:
    fleet = fleet_of(0, 0, 0)
    policy = POLICIES["prefix-affinity"].make()
    chosen = Counter(told(policy, fleet, Request(str(number), NOW, 100)) for number in range(30))

    assert chosen == {"r0": 10, "r1": 10, "r2": 10}


def test_weighted_scores_prefers_the_shorter_queue() -> None:
    fleet = fleet_of(0, 0)
    for replica, waiting in zip(fleet, (3, 1), strict=True):
        replica.signals, replica.signals_at = Signals(waiting=waiting, kv_usage=0.5), NOW

    assert choose(POLICIES["weighted-scores"].make(), fleet).name == "r1"


def test_a_session_stays_and_only_moves_with_its_replica() -> None:
    fleet = fleet_of(0, 0, 0, 0)
    policy = POLICIES["session"].make()
    homes = {number: told(policy, fleet, Request("id", NOW, 1, session=f"s{number}")) for number in range(200)}
    again = {number: told(policy, fleet, Request("id", NOW, 1, session=f"s{number}")) for number in range(200)}
    fewer = {number: told(policy, fleet[:3], Request("id", NOW, 1, session=f"s{number}")) for number in range(200)}

    assert homes == again
    assert set(homes.values()) == {"r0", "r1", "r2", "r3"}
    assert min(Counter(homes.values()).values()) > 20
    assert all(fewer[number] == home for number, home in homes.items() if home != "r3")


@given(loads=st.lists(st.integers(0, 40), min_size=2, max_size=6), session=st.text(max_size=5))
def test_sessions_overload_nobody(loads: list[int], session: str) -> None:
    chosen = (
        POLICIES["session"]
        .make()
        .choose(Request("id", NOW, 1, session=session), fleet_of(*loads), Context(NOW, random.Random(1)))
    )

    assert chosen.in_flight <= 1.25 * (sum(loads) + 1) / len(loads) + 1


@pytest.mark.parametrize("name", ["predicted-ttft", "halffull"])
def test_predicted_ttft_knows_work_speed_memory_and_prefixes(name: str) -> None:
    policy = POLICIES[name].make()
    fleet = fleet_of(0, 3)
    fleet[0].sent(10_000, NOW)
    assert choose(policy, fleet) is fleet[1]

    fleet = fleet_of(2, 3)
    fleet[0].prefill_rate = 1_000
    assert choose(policy, fleet) is fleet[1]

    fleet = fleet_of(0, 3)
    fleet[0].kv_tokens, fleet[0].decode_tokens = 1_000, 990
    assert choose(policy, fleet, tokens=500) is fleet[1]

    fleet = fleet_of(0, 0)
    books, request = sharing(fleet, "r1", prompt=5_000)
    assert told(policy, fleet, request, books) == "r1"


def test_predicted_ttft_counts_what_was_done_since_the_last_first_token() -> None:
    fleet = fleet_of(0, 0)
    fleet[0].sent(8_000, NOW - 0.7)
    fleet[1].sent(6_000, NOW)

    assert choose(POLICIES["predicted-ttft"].make(), fleet) is fleet[0]


def test_predicted_ttft_takes_a_replica_whose_first_token_is_overdue_for_slow() -> None:
    fleet = fleet_of(0, 0)
    fleet[0].sent(100, NOW - 30)
    fleet[1].sent(10_000, NOW)

    assert choose(POLICIES["predicted-ttft"].make(), fleet) is fleet[1]


def test_long_prompts_cost_more_than_their_length() -> None:
    fleet = fleet_of(0, 0)
    fleet[0].sent(100_000, NOW)
    for _ in range(14):
        fleet[1].sent(10_000, NOW)

    assert choose(POLICIES["sal"].make(), fleet) is fleet[0]
    assert choose(POLICIES["predicted-ttft"].make(), fleet) is fleet[1]


@pytest.mark.parametrize("better", ["sal", "least-requests"])
def test_adaptive_learns_which_base_is_better(better: str) -> None:
    """Two replicas: one that `sal` picks, one that `least-requests` picks; first tokens come sooner at one of them."""
    policy, books, rng = POLICIES["adaptive"].make(), Books(), random.Random(1)
    fleet = fleet_of(0, 1)
    fleet[0].sent(50_000, NOW)
    fleet[1].sent(10, NOW)
    for replica in fleet:
        books.add(replica)
        policy.added(replica)
    good = fleet[1] if better == "sal" else fleet[0]
    context = Context(NOW, rng, books)
    for number in range(2000):
        request = Request(str(number), context.now, 100)
        chosen = policy.choose(request, fleet, context)
        books.first_token(request, context.now + (0.1 if chosen is good else 0.4) * rng.lognormvariate(0, 0.5))
        context.now += 0.01
    shares = policy.figures()

    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0.01
    assert shares[better] > 5 * shares["least-requests" if better == "sal" else "sal"]


@pytest.mark.parametrize("size", [4, 100])
def test_sal_with_prefixes_takes_the_replica_that_holds_the_prompt_unless_it_has_more_to_do(size: int) -> None:
    policy = POLICIES["sal"].make(SalParameters(prefixes=True))
    assert policy.reads_prefixes
    assert not POLICIES["sal"].make().reads_prefixes
    fleet, books = fleet_of(*[0] * size), Books()
    for replica in fleet:
        books.add(replica)
        policy.added(replica)
    request = Request("id", NOW, 1000, blocks=tuple(range(9)), block_tokens=100)
    books.prefixes.insert("r2", request, None)
    context = Context(NOW, random.Random(1), books)

    assert policy.choose(request, fleet, context).name == "r2"

    fleet[2].sent(950, NOW)
    policy.changed(fleet[2])
    assert policy.choose(request, fleet, context).name != "r2"
