"""What learns, judged in simulated runs: the mixture of policies, and the ranker of answers' lengths."""

import random
from itertools import combinations

import pytest

from halffull.api.scenario import Scenario
from halffull.core.ranker import Ranker
from halffull.core.values import Request
from halffull.sim.measure import play
from halffull.sim.setting import setting
from halffull.sim.trace import recorded_lengths
from simulated_runs import contender

BASES = ("sal", "predicted-ttft", "kv-cost", "least-requests")
MARGIN = 1.1
"""stated in the docstring of the policy and in docs/simulator.md"""
WORKLOADS = {
    "conversation": {"workload": "convP"},
    "code": {"workload": "codeP"},
    "little memory": {"workload": "convTP"},
    "half slow": {"workload": "convP", "engines": {"count": 4, "speeds": [1, 0.5]}, "load": 0.6},
    "turns": {
        "workload": "convP",
        "engines": {"count": 4, "prefixCache": True},
        "clients": {"sessions": {"turns": 4, "thinkSeconds": 5}},
    },
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_adaptive_is_never_worse_than_its_worst_base_by_more_than_the_margin(name: str) -> None:
    """From its first request on, while it does not know anything yet."""
    run = setting(Scenario.model_validate({"engines": {"count": 4}, "load": 0.85, "requests": 1500} | WORKLOADS[name]))
    for seed in (1, 2):
        bases = [play(run, contender(base), seed).figures for base in BASES]
        mixed = play(run, contender("adaptive"), seed).figures
        assert mixed.ttft_mean <= MARGIN * max(base.ttft_mean for base in bases)
        assert mixed.ttft_p99 <= MARGIN * max(base.ttft_p99 for base in bases)


def kendall(pairs: list[tuple[float, int]]) -> float:
    """Kendall's tau-b of scores and lengths."""
    agreeing = score_ties = length_ties = 0
    for (score, length), (other_score, other_length) in combinations(pairs, 2):
        difference = (score - other_score) * (length - other_length)
        agreeing += (difference > 0) - (difference < 0)
        score_ties += score == other_score
        length_ties += length == other_length
    every = len(pairs) * (len(pairs) - 1) // 2
    return agreeing / max(((every - score_ties) * (every - length_ties)) ** 0.5, 1e-9)


def test_the_ranker_is_between_always_mean_and_oracle() -> None:
    """Two services with callers of their own, lengths as Azure recorded them: it knows prompt length and caller alone."""
    rng, ranker = random.Random(4), Ranker()
    calls = [(call, name) for name in ("conversation", "code") for call in recorded_lengths(name)[:1000]]
    rng.shuffle(calls)
    ranked: list[tuple[float, int]] = []
    for number, (call, caller) in enumerate(calls):
        request = Request(str(number), 0.0, call.prompt_tokens, caller=caller)
        if number >= 1000:
            ranked.append((ranker.score(request), call.output_tokens))
        ranker.learn(request, call.output_tokens)

    assert kendall([(0.0, length) for _, length in ranked]) == 0.0  # always the mean: no order at all
    assert kendall([(float(length), length) for _, length in ranked]) == pytest.approx(1.0)
    assert kendall(ranked) > 0.4
