"""F9: the disk is full: nothing of logs and access logs can be written, from the start on."""

from pathlib import Path

from chaos.crowd import Crowd
from chaos.questions import MODEL, Mix, Questions
from chaos.record import Record
from chaos.stage import ENGINE, Stage, configured, ready, until


async def play(stage: Stage, record: Record) -> None:
    """Output and errors go to a device that is always full; every request is to be logged."""
    path = stage.folder / "config.json"
    async with stage.child("engine", "--model", MODEL, *ENGINE) as engine:
        configured(path, [engine.address], router={"accessLog": {"sample": 1.0}, "drain": {"acceptSeconds": 0}})
        options = ("--config", str(path), "--log-level", "debug")
        async with stage.child("router", *options, output=Path("/dev/full")) as router:
            await until(router.admin_url, lambda status: ready(status, 1))
            async with Crowd(lambda: router.url, Questions(14, Mix(answer_tokens=(5, 30))), rate=20) as crowd:
                await crowd.answered(150)
            record.take(crowd)
            await record.read(router.admin_url)
            router.process.terminate()
            status = await router.ended()
    record.nothing_failed()
    record.goal("it ended with status 0", status == 0)
