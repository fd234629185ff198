"""F2: a replica falls mute in the middle of its streams, once stopped (SIGSTOP), once as a vLLM that got SIGTERM and hangs."""

import asyncio
import os
import signal

from chaos.crowd import Crowd
from chaos.questions import Mix, Questions
from chaos.record import Record
from chaos.stage import ENGINE, Stage, ready, states, stopped, until

DETECTED_S = 3.0 + 2.0 + 1.2 + 2.0
"""the floor of the learned limit, two looks at the engine, and what this machine takes"""


async def play(stage: Stage, record: Record) -> None:
    """Both forms, one after the other."""
    engine = {"type": "simulated", "template": {"args": [*ENGINE, "--mute-on-sigterm"]}}
    async with stage.up(replicas=4, engine=engine) as up:
        await until(up.admin_url, lambda status: ready(status, 4))
        async with Crowd(lambda: up.url, Questions(3, Mix()), rate=12) as crowd:
            first, second = list(up.engines().items())[:2]
            with stopped(first[1]):
                stopped_s = await _detected(up.admin_url, crowd, first[0])
            await until(up.admin_url, lambda status: ready(status, 4))
            os.kill(second[1], signal.SIGTERM)
            mute_s = await _detected(up.admin_url, crowd, second[0])
            await crowd.answered(10)
        record.take(crowd)
        await record.read(up.admin_url)
    record.figures["detectedSeconds"] = {"stopped": round(stopped_s, 2), "mute": round(mute_s, 2)}
    record.nothing_failed()
    record.goal(f"detected within {DETECTED_S} s", max(stopped_s, mute_s) <= DETECTED_S)
    record.goal("streams went on elsewhere", record.continued)


async def _detected(admin_url: str, crowd: Crowd, replica: str) -> float:
    """Seconds until the router says that this replica is down."""
    began = asyncio.get_running_loop().time()
    await until(admin_url, lambda status: states(status)[replica] == "Down")
    await crowd.answered(5)
    return asyncio.get_running_loop().time() - began
