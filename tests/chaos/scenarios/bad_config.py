"""F9: wrong documents, an unknown policy, a half-written file, no file: the last good one stays, and the status says so."""

import asyncio
import json

from chaos.crowd import Crowd
from chaos.questions import MODEL, Mix, Questions
from chaos.record import Record
from chaos.stage import ENGINE, Stage, configured, page, ready, until


async def play(stage: Stage, record: Record) -> None:
    """First files of `halffull up`, then a router's own."""
    async with stage.up(replicas=2) as up:
        await until(up.admin_url, lambda status: ready(status, 2))
        good = up.file.read_text()
        async with Crowd(lambda: up.url, Questions(12, Mix()), rate=8) as crowd:
            hash_ = (await page(up.admin_url))["config"]["hash"]
            wrong = (good.replace("policy: sal", "policy: best"), "{", "", good[: len(good) // 2], f"{good}---\n{good}")
            for number, text in enumerate(wrong):
                up.file.write_text(text)  # not in one step, as a careless editor does
                await up.said("not taken over, what runs stays as it is", times=number + 1)
                await crowd.answered(3)
                up.write(good)
                await asyncio.sleep(0.5)  # two looks at the file
            kept = (await page(up.admin_url))["config"]["hash"] == hash_
            up.edit(scheduling={"policy": "least-requests"})
            await until(up.admin_url, lambda status: status["policy"] == "least-requests")
        record.take(crowd)
        await record.read(up.admin_url)
    record.goal("halffull up: the last good configuration stayed", kept)
    await _router(stage, record)
    record.nothing_failed()


async def _router(stage: Stage, record: Record) -> None:
    path = stage.folder / "config.json"
    async with stage.child("engine", "--model", MODEL, *ENGINE) as engine:
        hash_ = configured(path, [engine.address])
        good = path.read_text()
        async with stage.child("router", "--config", str(path)) as router:
            await until(router.admin_url, lambda status: ready(status, 1))
            said = []
            async with Crowd(lambda: router.url, Questions(13, Mix()), rate=8) as crowd:
                for text in (
                    good[:200],
                    json.dumps(json.loads(good) | {"version": 99}),
                    good.replace('"sal"', '"best"'),
                    "\0",
                ):
                    path.write_text(text)
                    status = await until(router.admin_url, lambda status: status["config"]["error"])
                    said.append(status["config"]["hash"] == hash_)
                    await crowd.answered(2)
                    path.write_text(good)
                    await until(router.admin_url, lambda status: status["config"]["error"] is None)
                path.unlink()
                status = await until(router.admin_url, lambda status: status["config"]["error"])
                said.append(status["config"]["hash"] == hash_)
                await crowd.answered(2)
            record.take(crowd)
            await record.read(router.admin_url)
    record.goal("router: the last good configuration stayed, and its status said why", all(said))
