"""The engine model on a clock: absolute deadlines, aborts, silence."""

import asyncio
import functools
from dataclasses import replace

import looptime
import pytest

from halffull.sim.engine_model import EngineModel, EngineSequence
from halffull.sim.metrics import EngineMetrics
from halffull.sim.pace import Pace, Slot
from halffull.sim.profiles import PROFILES, Profile

STEP = Profile(1.0, 0.0, 0.0, 0.0, 0.0, kv_tokens=1000, max_batched_tokens=256)


def in_virtual_time(test):
    """Run a test's coroutine on a loop whose clock jumps to the next timer."""

    @functools.wraps(test)
    def run():
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(test())

    del run.__wrapped__  # or pytest would see the coroutine function
    return run


class Ears:
    """A job that notes what it hears and when; each word takes it `slow` seconds of the loop's clock."""

    def __init__(self, clock, slow=0.0):
        self.heard = []
        self.ended = asyncio.Event()
        self._clock = clock
        self._slow = slow

    def progressed(self, index, sequence, generated, reason):
        self.heard.append((self._clock.time(), generated, reason))
        self._clock.late += self._slow
        if reason is not None:
            self.ended.set()


class Clock:
    """The running loop's virtual clock, which handlers can make late as if they had used CPU time."""

    def __init__(self):
        self.late = 0.0
        loop = asyncio.get_running_loop()
        virtual = loop.time
        self.time = lambda: virtual() + self.late
        loop.time = self.time


def sequence(job, output, prompt=5):
    return EngineSequence(prompt, output, owner=Slot(job, 0, "length", output))


def paced(scale=1.0, profile=STEP):
    metrics = EngineMetrics(4096, 0.3)
    return Pace(EngineModel(profile), scale, metrics), metrics


@in_virtual_time
async def test_tokens_come_when_their_steps_end():
    pace, metrics = paced(scale=2.0)
    ears = Ears(Clock())
    began = asyncio.get_running_loop().time()
    pace.submit([sequence(ears, 3)])
    await ears.ended.wait()
    assert [(round(at - began, 3), generated, reason) for at, generated, reason in ears.heard] == [
        (2.0, 1, None),
        (4.0, 2, None),
        (6.0, 3, "length"),
    ]
    assert pace.idle.is_set()
    assert metrics.first_token.sum == pytest.approx(2.0)
    assert metrics.token_gap.sum == pytest.approx(4.0)


@in_virtual_time
async def test_lateness_does_not_add_up():
    """Each step's handlers take 0.4 of a step; steps still end on the second."""
    pace, _ = paced()
    clock = Clock()
    ears = Ears(clock, slow=0.4)
    began = clock.time()
    pace.submit([sequence(ears, 100)])
    await ears.ended.wait()
    assert [round(at - began, 2) for at, _, _ in ears.heard] == [float(step) for step in range(1, 101)]


@in_virtual_time
async def test_an_engine_that_fell_behind_catches_up():
    pace, metrics = paced()
    clock = Clock()
    ears = Ears(clock)
    began = clock.time()
    pace.submit([sequence(ears, 60)])
    await asyncio.sleep(2.5)
    clock.late += 50
    await ears.ended.wait()
    assert len(ears.heard) == 60
    assert round(ears.heard[-1][0] - began) == 60
    assert metrics.token_gap.sum == pytest.approx(59), "the model's own times are not late"


@in_virtual_time
async def test_an_idle_engine_starts_when_work_comes_not_in_the_past():
    pace, _ = paced()
    clock = Clock()
    await asyncio.sleep(10)
    ears = Ears(clock)
    began = clock.time()
    pace.submit([sequence(ears, 1)])
    await ears.ended.wait()
    assert ears.heard[0][0] - began == pytest.approx(1.0)


@in_virtual_time
async def test_abort_ends_all_with_what_they_have():
    pace, metrics = paced(profile=replace(STEP, max_sequences=1))
    clock = Clock()
    running, waiting = Ears(clock), Ears(clock)
    pace.submit([sequence(running, 9)])
    pace.submit([sequence(waiting, 9)])
    await asyncio.sleep(2.5)
    pace.abort()
    assert running.heard[-1][1:] == (2, "abort")
    assert waiting.heard[-1][1:] == (0, "abort")
    assert metrics.finished["abort"] == 2
    assert pace.in_flight == 0
    await asyncio.sleep(5)
    assert len(running.heard) == 3


@in_virtual_time
async def test_a_frozen_engine_says_nothing_more_but_lets_clients_go():
    pace, _ = paced()
    clock = Clock()
    ears, late = Ears(clock), Ears(clock)
    held = sequence(ears, 9)
    pace.submit([held])
    await asyncio.sleep(2.5)
    pace.freeze()
    waiting = sequence(late, 9)
    pace.submit([waiting])
    await asyncio.sleep(100)
    assert len(ears.heard) == 2
    assert late.heard == []
    pace.cancel([held, waiting])
    assert pace.idle.is_set()


@in_virtual_time
async def test_cancelling_what_has_ended_changes_nothing():
    pace, metrics = paced(profile=PROFILES["a100"])
    ears = Ears(Clock())
    one = sequence(ears, 2)
    pace.submit([one])
    await ears.ended.wait()
    pace.cancel([one])
    assert metrics.finished == {"length": 1}
