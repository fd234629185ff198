"""F3: a replica answers 503 for ten seconds, first by its status, then in the first event of a stream."""

from chaos.crowd import Crowd
from chaos.questions import Mix, Questions
from chaos.record import Record
from chaos.relay import EVENT_503, STATUS_503, up_behind_relays
from chaos.stage import Stage


async def play(stage: Stage, record: Record) -> None:
    """One of three replicas refuses every request for text; its health and metrics stay well."""
    async with up_behind_relays(stage, 3) as (up, before):
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
