"""F4: the ModelDeployment is edited again and again: policies, numbers of replicas, names of the model."""

from itertools import cycle, islice

from chaos.crowd import Crowd
from chaos.questions import Mix, Questions
from chaos.record import Record
from chaos.stage import Stage, ready, until
from halffull.policies.catalog import POLICIES

EDITS = 40


async def play(stage: Stage, record: Record) -> None:
    """Every policy in turn, and another number of replicas at every fifth edit."""
    replicas = cycle((2, 4, 1, 3))
    async with stage.up(replicas=3) as up:
        await until(up.admin_url, lambda status: ready(status, 3))
        async with Crowd(lambda: up.url, Questions(7, Mix()), rate=10) as crowd:
            await crowd.answered(10)
            for number, policy in enumerate(islice(cycle(sorted(POLICIES)), 8 if record.short else EDITS)):
                up.edit(scheduling={"policy": policy}, modelAliases=[f"name-{number}"])
                if number % 5 == 0:
                    up.edit(replicas=next(replicas))
                await until(up.admin_url, lambda status, policy=policy: status["policy"] == policy)
                await crowd.answered(3)
            await until(up.admin_url, lambda status: ready(status, up.spec["replicas"]))
        record.take(crowd)
        await record.read(up.admin_url)
    record.nothing_failed()
