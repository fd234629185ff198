"""F3: a replica answers 503 for ten seconds, first by its status, then in the first event of a stream."""

from contextlib import AsyncExitStack

from chaos.crowd import Crowd
from chaos.questions import MODEL, Mix, Questions
from chaos.record import Record
from chaos.relay import EVENT_503, STATUS_503, relays
from chaos.stage import ENGINE, Stage, ready, until


async def play(stage: Stage, record: Record) -> None:
    """One of three replicas refuses every request for text; its health and metrics stay well."""
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(stage.child("engine", "--model", MODEL, *ENGINE)) for _ in range(3)]
        before = await stack.enter_async_context(relays([engine.port for engine in engines]))
        endpoints = [relay.address for relay in before]
        up = await stack.enter_async_context(stage.up(engine={"type": "simulated", "endpoints": endpoints}))
        await until(up.admin_url, lambda status: ready(status, 3))
        async with Crowd(lambda: up.url, Questions(4, Mix(plain=0.3)), rate=12) as crowd:
            await crowd.answered(10)
            for form in (STATUS_503, EVENT_503):
                before[0].answer = lambda request, form=form: form if request.startswith(b"POST /v1") else None
                await crowd.seconds(3 if record.short else 10)
            before[0].answer = None
            await crowd.answered(20)
        record.take(crowd)
        await record.read(up.admin_url)
        record.figures["refusedByTheReplica"] = before[0].refused
        record.goal("the replica refused requests", before[0].refused)
    record.nothing_failed()
