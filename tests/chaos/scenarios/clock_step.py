"""F9: the time of day of a router jumps by an hour forth and by a day back."""

from pathlib import Path

from chaos.crowd import Crowd
from chaos.questions import MODEL, Mix, Questions
from chaos.record import Record
from chaos.stage import ENGINE, Stage, configured, ready, until

STEPS_S = (3600.0, -86_400.0, 0.0)


async def play(stage: Stage, record: Record) -> None:
    """Step it under load; requests that wait, retry or stream must not notice."""
    path, offset = stage.folder / "config.json", stage.folder / "offset"
    offset.write_text("0")
    program = (str(Path(__file__).parents[1] / "stepped.py"), str(offset))
    async with stage.child("engine", "--model", MODEL, *ENGINE, "--max-num-seqs", "8") as engine:
        router_ = {"accessLog": {"sample": 1.0}, "drain": {"acceptSeconds": 0}, "requestTimeoutSeconds": 60}
        configured(path, [engine.address], router=router_)
        async with stage.child("router", "--config", str(path), program=program) as router:
            await until(router.admin_url, lambda status: ready(status, 1))
            async with Crowd(lambda: router.url, Questions(15, Mix(answer_tokens=(20, 60))), rate=8) as crowd:
                for step in STEPS_S:
                    await crowd.answered(10)
                    fresh = offset.with_suffix(".new")
                    fresh.write_text(str(step))
                    fresh.replace(offset)
                await crowd.answered(20)
            record.take(crowd)
            await record.read(router.admin_url)
            years = {line[9:19] for line in router.log.read_text().splitlines() if line.startswith('{"time"')}
    record.nothing_failed()
    record.goal("the access log shows the jump", len(years) > 1)
