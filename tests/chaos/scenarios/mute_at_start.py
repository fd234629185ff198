"""F2: a replica is mute from the first request on: it takes connections and says nothing."""

import asyncio

from chaos.crowd import Crowd
from chaos.questions import Mix, Questions
from chaos.record import Record
from chaos.stage import Stage, ready, states, stopped, until

DETECTED_S = 3.0 + 2.0 + 1.5
"""the floor of the learned limit, one look at the engine, and what this machine takes"""


async def play(stage: Stage, record: Record) -> None:
    """Stop one (SIGSTOP) before anything was sent to it, go on with it later."""
    async with stage.up(replicas=4) as up:
        await until(up.admin_url, lambda status: ready(status, 4))
        mute, pid = next(iter(up.engines().items()))
        with stopped(pid):
            async with Crowd(lambda: up.url, Questions(2, Mix(plain=0.4)), rate=10) as crowd:
                began = asyncio.get_running_loop().time()
                await until(up.admin_url, lambda status: states(status)[mute] == "Down")
                detected_s = asyncio.get_running_loop().time() - began
                await crowd.answered(20)
        record.take(crowd)
        await record.read(up.admin_url)
        await until(up.admin_url, lambda status: ready(status, 4))
    record.figures["detectedSeconds"] = round(detected_s, 2)
    record.nothing_failed()
    record.goal(f"detected within {DETECTED_S} s", detected_s <= DETECTED_S)
    record.goal("what it held went elsewhere", record.moved)
