"""What is learned of the lengths of answers: their survival, and which of two requests gets the longer one."""

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halffull.core.ranker import Ranker
from halffull.core.survival import PRIOR_TOKENS, Survival
from halffull.core.values import Request


def request(*, caller: str = "", max_tokens: int | None = None, prompt: int = 100) -> Request:
    return Request("id", 0.0, prompt, caller=caller, max_tokens=max_tokens)


def test_nothing_known_is_a_prior_within_the_limit() -> None:
    assert Survival().left(request()) == PRIOR_TOKENS
    assert Survival().left(request(max_tokens=16)) == 16


@given(lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=100), so_far=st.integers(0, 6000))
def test_the_expected_rest_is_the_mean_of_those_that_got_so_far(lengths: list[int], so_far: int) -> None:
    survival = Survival()
    for length in lengths:
        survival.add(request(), length)
    longer = [length - so_far for length in lengths if length > so_far]
    left = survival.left(request(), so_far)

    assert left > 0
    if len(longer) == len(lengths):
        assert left == pytest.approx(sum(longer) / len(longer), rel=0.06, abs=0.06 * so_far + 1)


@given(lengths=st.lists(st.integers(1, 5000), max_size=60), limit=st.integers(1, 500), so_far=st.integers(0, 400))
def test_max_tokens_caps_it(lengths: list[int], limit: int, so_far: int) -> None:
    survival = Survival()
    for length in lengths:
        survival.add(request(max_tokens=limit), length)

    assert 0 <= survival.left(request(max_tokens=limit), so_far) <= max(limit - so_far, 0)


def test_a_caller_that_is_known_well_speaks_for_itself() -> None:
    survival = Survival()
    for _ in range(200):
        survival.add(request(caller="brief"), 10)
        survival.add(request(caller="chatty"), 1000)
    for _ in range(5):
        survival.add(request(caller="new"), 10)

    assert survival.left(request(caller="brief")) == pytest.approx(10, rel=0.1)
    assert survival.left(request(caller="chatty")) == pytest.approx(1000, rel=0.1)
    assert survival.left(request(caller="new")) == pytest.approx(505, rel=0.2)


def test_old_evidence_fades() -> None:
    survival = Survival()
    for length in [10] * 3000 + [1000] * 3000:
        survival.add(request(), length)

    assert survival.left(request()) > 900


def test_survival_goes_on_past_the_range_of_its_numbers() -> None:
    survival = Survival()
    for _ in range(250_000):
        survival.add(request(), 100)

    assert survival.left(request()) == pytest.approx(100)


def tau(pairs: list[tuple[float, int]]) -> float:
    """Kendall's rank correlation, ties in length left out."""
    signs = [(one[0] - other[0]) * (one[1] - other[1]) for one, other in combinations(pairs, 2) if one[1] != other[1]]
    return sum((sign > 0) - (sign < 0) for sign in signs) / len(signs)


def test_the_ranker_learns_what_tells_long_answers_and_nothing_else() -> None:
    rng, ranker, tests = random.Random(2), Ranker(), []
    for number in range(1500):
        caller = rng.choice("abcd")
        asked = request(caller=caller, prompt=rng.randrange(10, 5000), max_tokens=rng.choice([None, 64, 4096]))
        base = {"a": 20, "b": 80, "c": 300, "d": 900}[caller] * rng.lognormvariate(0, 0.5)
        tokens = max(1, round(min(base, asked.max_tokens or base)))
        if number >= 1300:
            tests.append((ranker.score(asked), tokens))
        ranker.learn(asked, tokens)

    assert tau(tests) > 0.55
    assert abs(tau([(score, rng.randrange(1000)) for score, _ in tests])) < 0.15
    assert 0 <= ranker.rank(request(caller="a")) < ranker.rank(request(caller="d")) <= 1
