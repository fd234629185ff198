"""F10: very many requests while replicas come, die and go and policies change: nothing grows, and the books end empty."""

import asyncio
import os
import signal
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from chaos.crowd import Crowd
from chaos.questions import Mix, Questions
from chaos.record import Record
from chaos.stage import ENGINE, LOOK_S, Stage, Up, page, ready, states, until
from halffull.policies.catalog import POLICIES

MIX = Mix(prompt_tokens=(5, 60), answer_tokens=(1, 8), plain=0.4)
CHURN_S = 4.0
CLOSED_S = 30.0
"""in which the router has closed connections that nobody uses"""
LAG_S = 5.0
"""in which an engine's gauges show that it is idle"""
GROWTH_MIB = 24
"""that memory may differ between a third of the way and the end: policies that learn, buffers of malloc"""


async def play(stage: Stage, record: Record) -> None:
    """As many as `--requests` says; every few seconds a replica is killed, the fleet grows or shrinks, the policy changes."""
    total, rate = 1500 if record.short else record.lengths.requests, record.lengths.rate
    record.figures |= {"requests": total, "ratePerSecond": rate}
    engine = {"type": "simulated", "template": {"args": [*ENGINE, "--speedup", "10"]}}
    sizes = []
    async with stage.up(replicas=4, engine=engine) as up:
        await until(up.admin_url, lambda status: ready(status, 4))
        async with Crowd(lambda: up.url, Questions(16, MIX), rate=rate) as crowd:
            churning = asyncio.create_task(_churn(up))
            for _ in range(10):
                await crowd.answered(total // 10, within_s=max(60.0, total / 10))
                sizes.append(await _size(up))
            churning.cancel()
            with suppress(asyncio.CancelledError):
                await churning
        record.take(crowd)
        await record.read(up.admin_url)
        up.edit(replicas=4)
        end = await until(up.admin_url, lambda status: list(states(status).values()) == ["Ready"] * 4 and idle(status))
        sizes.append(await _after_idle(up, sizes[3]["files"]))
        held = [await _held(f"http://{replica['name']}") for replica in end["replicas"]]
    early, late = sizes[3], sizes[-1]
    record.figures |= {"size": {"early": early, "end": late}, "heldByEngines": held}
    record.nothing_failed()
    record.goal("RSS flat", late["rssMib"] - early["rssMib"] <= GROWTH_MIB)
    record.goal("file descriptors are given back", late["files"] <= early["files"])
    record.goal("threads flat", late["threads"] <= early["threads"] + 2)
    record.goal("the books end empty", idle(end))
    record.goal("so do the engines", not any(held))


def idle(status: Any) -> bool:
    """Whether nothing is in the books."""
    keys = ("inFlight", "prefillTokens", "waitingPromptTokens", "decoding", "decodeTokens")
    return not any(replica[key] for replica in status["replicas"] for key in keys)


async def _churn(up: Up) -> None:
    """Until cancelled."""
    policies, sizes, kill = cycle(sorted(POLICIES)), cycle((3, 5, 4)), cycle((False, True))
    while True:
        await asyncio.sleep(CHURN_S)
        up.edit(scheduling={"policy": next(policies)}, replicas=next(sizes))
        if next(kill) and (engines := list(up.engines().values())):
            with suppress(ProcessLookupError):
                os.kill(engines[0], signal.SIGKILL)


async def _after_idle(up: Up, files: float) -> dict[str, float]:
    """The size once connections that nobody uses are closed: when there are no more files than these, at the latest in a while."""
    size = await _size(up)
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSED_S):
            while size["files"] > files:
                await asyncio.sleep(LOOK_S)
                size = await _size(up)
    return size


async def _size(up: Up) -> dict[str, float]:
    """Of the router's process."""
    process = Path(f"/proc/{up.router()}")
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return {
        "rssMib": round(int(fields["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(fields["Threads"]),
        "files": len(list((process / "fd").iterdir())),
    }


async def _held(url: str) -> float:
    """Requests that an engine runs or has waiting, as it says itself: its gauges lag, so at the latest in a while."""
    held = await _gauges(url)
    with suppress(TimeoutError):
        async with asyncio.timeout(LAG_S):
            while held:
                await asyncio.sleep(LOOK_S)
                held = await _gauges(url)
    return held


async def _gauges(url: str) -> float:
    names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
    text = await page(url, "/metrics")
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(names))
