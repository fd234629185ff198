"""Conversations of several turns: each prompt begins with all that was said before. Called by `setting`.

A conversation is made of successive requests of the workload. Its first turn arrives as requests do, in a tempo that keeps
the rate of requests; every other one when its client has read the answer before and thought.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from halffull.api.scenario import Sessions
from halffull.sim.demand import Demand
from halffull.sim.trace import BLOCK_TOKENS, Call

CONTEXT_TOKENS = 32_768
"""history that clients keep at most: what goes beyond, they leave out altogether"""
BLOCKS = 1 << 20
"""names of blocks that one history may have"""


def with_histories(calls: Sequence[Call], sessions: Sessions, kv_tokens: int) -> list[Call]:
    """Return the calls with prompts that begin with the history of their conversation, and names of their blocks."""
    most = min(CONTEXT_TOKENS, kv_tokens // 2)
    result: list[Call] = []
    history = story = 0
    for number, call in enumerate(calls):
        if number % sessions.turns == 0 or history + call.prompt_tokens + call.output_tokens > most:
            history, story = 0, story + 1
        prompt = history + call.prompt_tokens
        blocks = tuple(range(story * BLOCKS, story * BLOCKS + prompt // BLOCK_TOKENS))
        result.append(replace(call, prompt_tokens=prompt, blocks=blocks))
        history = prompt + call.output_tokens
    return result


def link(demands: Sequence[Demand], sessions: Sessions, rng: Random) -> None:
    """Let each request but the first of a conversation wait for the one before; the first ones keep the rate of arrivals."""
    times = [demand.arrived for demand in demands]
    for number, demand in enumerate(demands):
        conversation, turn = divmod(number, sessions.turns)
        demand.session = f"session-{conversation}"
        if turn:
            demand.arrived = float("inf")
            demand.think_s = rng.expovariate(1 / sessions.think_seconds) if sessions.think_seconds else 0.0
            demands[number - 1].next_turn = demand
        else:
            demand.arrived = times[conversation] * sessions.turns
