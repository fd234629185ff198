"""F4: a rolling restart of all engines, first by an edit of their template, then by SIGTERM, at which they give up answers."""

import os
import signal

from chaos.crowd import Crowd
from chaos.questions import Mix, Questions
from chaos.record import Record
from chaos.stage import ENGINE, Stage, ready, until


async def play(stage: Stage, record: Record) -> None:
    """`halffull up` replaces them one by one; then each is told to stop, and started again."""
    async with stage.up(replicas=3) as up:
        await until(up.admin_url, lambda status: ready(status, 3))
        old = set(up.engines())
        async with Crowd(lambda: up.url, Questions(5, Mix()), rate=10) as crowd:
            await crowd.answered(10)
            up.edit(engine={"type": "simulated", "template": {"args": [*ENGINE, "--block-size", "32"]}})
            await up.said("has ended", times=3)
            await until(up.admin_url, lambda status: ready(status, 3))
            replaced = not old & set(up.engines())
            for number, pid in enumerate(list(up.engines().values()) if not record.short else []):
                os.kill(pid, signal.SIGTERM)
                await up.said("serves again", times=number + 1)
                await until(up.admin_url, lambda status: ready(status, 3))
            await crowd.answered(10)
        record.take(crowd)
        await record.read(up.admin_url)
    record.nothing_failed()
    record.goal("all were replaced", replaced)
