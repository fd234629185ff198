"""Conversations of several turns: what is asked, when, and what the prefix cache has of it."""

from itertools import pairwise

import pytest

from halffull.api.scenario import Sessions
from halffull.sim.conversation import CONTEXT_TOKENS, with_histories
from halffull.sim.profiles import PROFILES
from halffull.sim.setting import SettingError
from halffull.sim.setting import setting as setting_of
from halffull.sim.trace import BLOCK_TOKENS, Call
from simulated_runs import contender, play, setting

TALK = {"clients": {"sessions": {"turns": 3, "thinkSeconds": 2}}}


def test_a_prompt_begins_with_all_that_was_said() -> None:
    calls = with_histories([Call(0.0, 1000, 200)] * 4, Sessions(turns=3), 400_000)
    assert [call.prompt_tokens for call in calls] == [1000, 2200, 3400, 1000]
    assert [len(call.blocks) for call in calls] == [1000 // BLOCK_TOKENS, 2200 // BLOCK_TOKENS, 3400 // BLOCK_TOKENS, 1]
    assert calls[2].blocks[: len(calls[1].blocks)] == calls[1].blocks
    assert set(calls[3].blocks).isdisjoint(calls[2].blocks)


def test_a_history_that_is_too_long_is_left_out() -> None:
    calls = with_histories([Call(0.0, CONTEXT_TOKENS // 2, 10)] * 3, Sessions(turns=3), 400_000)
    assert {call.prompt_tokens for call in calls} == {CONTEXT_TOKENS // 2}
    assert set(calls[0].blocks).isdisjoint(calls[1].blocks)


def test_each_turn_comes_after_the_answer_before_it_and_the_rate_is_kept() -> None:
    run = setting([Call(0.0, 600, 30)] * 3000, 20.0, engines={"count": 4, "prefixCache": True}, **TALK)
    simulation = play(run, contender("session"))
    turns = [simulation.demands[start : start + 3] for start in range(0, 3000, 3)]
    thought = [later.arrived - earlier.ended for talk in turns for earlier, later in pairwise(talk)]
    assert min(thought) >= 0
    assert sum(thought) / len(thought) == pytest.approx(2, rel=0.1)
    arrivals = sorted(demand.arrived for demand in simulation.demands)
    assert 1500 / (arrivals[2250] - arrivals[750]) == pytest.approx(20, rel=0.1)
    assert all(len({demand.session for demand in talk}) == 1 for talk in turns)
    hits = sum(demand.cached_tokens for demand in simulation.demands)
    said_before = sum(len(earlier.blocks) * BLOCK_TOKENS for talk in turns for earlier in talk[:2])
    assert 0.5 * said_before < hits <= said_before  # the policy's bound of load sends some elsewhere


def test_traces_that_have_conversations_get_no_others(tmp_path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1]}\n' * 2)
    run = setting([], 1.0, PROFILES["h100"], workload="moonS", trace=str(trace), arrivals="poisson", **TALK).scenario
    with pytest.raises(SettingError, match="conversations of its own"):
        setting_of(run)
