"""`halffull demo`: a policy edit under load, live. Four simulated engines, recorded request lengths, one file that is edited."""

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from halffull.api import flags
from halffull.local import scene
from halffull.local.client import Client, Outcome, Target
from halffull.local.comparison import Windows, compare, lines
from halffull.local.live import Moment, Recent, Screen
from halffull.local.machine import Machine
from halffull.local.process import StartError
from halffull.local.prompts import Prompts
from halffull.local.replay import Replay
from halffull.local.report import spread
from halffull.local.router_process import RouterProcess
from halffull.local.scene import AFTER, BEFORE, MODEL, Scene
from halffull.router.loop import Loop

WARM_UP = 0.1
"""share of the time, at the start and again after the edit, whose requests are left out of the figures"""
REFRESH_S = 0.5
BUSY, LATE_S = 0.85, 0.05
"""share of the CPU cores, and lateness of sent requests, above which the machine, rather than the modelled GPUs, may make
the figures"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--seconds", type=_seconds, default=40.0, help="how long to send requests (default: 40)")
    parser.add_argument("--json", type=flags.new_file, metavar="FILE", help="write the figures here too")
    parser.add_argument("--seed", type=int, default=1, help="of the requests and their arrivals")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 if no request failed, 1 if one did or something did not start, 130 if it was stopped."""
    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            figures = runner.run(_run(arguments))
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    if figures is None:
        print("stopped")
        return 130
    cpu = _cpu_share(figures["elapsedSeconds"])
    figures["cpuShare"] = round(cpu, 3)
    print("\n".join(summary(figures)))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if figures["failed"] else 0


def summary(figures: dict[str, Any]) -> list[str]:
    """What the demo found, for people."""
    failed = sum(figures["failed"].values())
    text = [
        "",
        *lines(figures, BEFORE, AFTER),
        "",
        (
            f"{figures['requests']} requests in all, {failed} failed. The edit was in force after "
            f"{figures['swap']['appliedSeconds']:.2f} s, with {figures['swap']['inFlight']} requests in flight."
        ),
        (
            f"Left out of the table: the first {figures['warmUpSeconds']:g} s, and the {figures['warmUpSeconds']:g} s after "
            f"the edit, in which the queues that {BEFORE} left still empty."
        ),
        (
            f"Engines are simulated: {scene.ENGINES} A100 with an 8B model, {scene.SPEEDUP:g} times as fast as real ones, "
            f"one {scene.SLOWDOWN:g}x slower; CPU use {figures['cpuShare']:.0%} of {os.cpu_count()} cores."
        ),
    ]
    if figures["cpuShare"] > BUSY or figures["lagSeconds"] > LATE_S:
        text.append(
            f"This machine was too busy for figures that tell of the policies alone: 1 % of the requests were sent more "
            f"than {figures['lagSeconds'] * 1000:.0f} ms late."
        )
    return text + [f"  failed: {count} x {kind}" for kind, count in figures["failed"].items()]


@dataclass
class _Run:
    """What is collected while the demo runs."""

    recent: Recent = field(default_factory=Recent)
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    @property
    def failed(self) -> dict[str, int]:
        return dict(Counter(outcome.error for outcome in self.outcomes if outcome.error))


async def _run(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Start everything, play, stop everything; None if a signal came."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (a coroutine runs in a task)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    state = _Run()
    try:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="halffull-demo-")))
            stage = await stack.enter_async_context(Scene(folder, state.notes.append))
            machine = await stack.enter_async_context(
                Machine([stage.file], host="127.0.0.1", port=0, admin_port=0, say=state.notes.append)
            )
            following = asyncio.create_task(machine.follow(lambda _: None))
            stack.callback(following.cancel)
            router = next(iter(machine.deployments.values())).router
            return await _play(arguments, stage, router, state)
    except asyncio.CancelledError:
        return None


async def _play(arguments: argparse.Namespace, stage: Scene, router: RouterProcess, state: _Run) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    seconds, start = arguments.seconds, loop.time()
    warm_up = WARM_UP * seconds
    state.notes.clear()
    async with Client(Target(router.url, MODEL), Prompts(arguments.seed)) as client:
        replay = Replay(
            client,
            stream_share=1.0,
            rng=Random(arguments.seed),
            ended=state.ended,
            first_token=state.recent.first_token,
        )
        screen = Screen(stage.names, state.recent, Console())
        showing = asyncio.create_task(_show(screen, router, replay, state, seconds))
        replaying = asyncio.create_task(replay.run(scene.requests(seconds, arguments.seed)))
        try:
            await asyncio.sleep(seconds / 2)
            edited, in_flight = loop.time(), replay.in_flight
            state.notes.append(f"editing {stage.file.name}: policy {BEFORE} -> {AFTER}")
            stage.edit(AFTER)
            applied = await _swapped(router)
            await replaying
        finally:
            showing.cancel()
            replaying.cancel()
    windows = Windows((start + warm_up, edited), (applied + warm_up, start + seconds))
    return {
        "seconds": seconds,
        "elapsedSeconds": round(loop.time() - start, 3),
        "warmUpSeconds": warm_up,
        "requests": len(state.outcomes),
        "failed": state.failed,
        "lagSeconds": (spread(outcome.lag_s for outcome in state.outcomes) or {"p99": 0.0})["p99"],
        "swap": {"from": BEFORE, "to": AFTER, "appliedSeconds": round(applied - edited, 3), "inFlight": in_flight},
        **compare(state.outcomes, windows, stage.slow),
    }


async def _swapped(router: RouterProcess) -> float:
    """Wait until the router schedules by the new policy; return when that was seen."""
    while True:
        status = await router.status()
        if status and status["policy"] == AFTER:
            return asyncio.get_running_loop().time()
        await asyncio.sleep(0.02)


async def _show(screen: Screen, router: RouterProcess, replay: Replay, state: _Run, seconds: float) -> None:
    """Draw until cancelled."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    next_second = start + 1
    status: dict[str, Any] = {}
    with screen:
        while True:
            await asyncio.sleep(REFRESH_S)
            status = await router.status() or status
            now = loop.time()
            if now >= next_second:
                state.recent.second(status.get("policy", "?"))
                next_second += 1
            text = (
                f"{now - start:3.0f}/{seconds:g} s  {replay.sent} sent  {replay.in_flight} in flight  "
                f"{sum(state.failed.values())} failed"
            )
            screen.draw(status, Moment(now, now - start, text), state.notes)


def _cpu_share(elapsed_s: float) -> float:
    """CPU time of this process and of its children, which have ended, as a share of all cores."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used) / elapsed_s / (os.cpu_count() or 1)


def _seconds(text: str) -> float:
    value = flags.positive(text)
    if value < 5:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; allowed: 5 or more")
    return value
