"""F1: one of four replicas dies (kill -9) in the middle of its streams."""

import os
import signal

from chaos.crowd import Crowd
from chaos.questions import Mix, Questions
from chaos.record import Record
from chaos.stage import Stage, ready, until

DEAD = 1


async def play(stage: Stage, record: Record, dead: int = DEAD) -> None:
    """Kill `dead` of them while each has streams under way; `halffull up` starts them again."""
    async with stage.up(replicas=4) as up:
        await until(up.admin_url, lambda status: ready(status, 4))
        async with Crowd(lambda: up.url, Questions(1, Mix()), rate=12) as crowd:
            await crowd.answered(10)
            for kill in range(1 if record.short else 3):
                await until(up.admin_url, lambda status: all(page["decoding"] for page in status["replicas"]))
                for pid in list(up.engines().values())[:dead]:
                    os.kill(pid, signal.SIGKILL)
                await up.said("serves again", times=dead * (kill + 1))
                await until(up.admin_url, lambda status: ready(status, 4))
            await crowd.answered(10)
        record.take(crowd)
        await record.read(up.admin_url)
    record.nothing_failed()
    record.goal("streams went on elsewhere", record.continued)
