"""`engine.priority` of a router process: what of the field `priority` reaches an engine."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from processes import running
from routers import write_config

ANSWER = {"id": "c", "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]}
LENGTHS = {"short": 10, "long": 8000}


class Stub:
    """An engine that notes what it is asked."""

    def __init__(self) -> None:
        self.headers: set[str | None] = set()
        self.bodies: dict[str, dict[str, Any]] = {}

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.headers.add(request.headers.get("x-vllm-priority"))
        self.bodies[body["user"]] = body
        return web.json_response(ANSWER)

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text="vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n")


@pytest.fixture
async def stub() -> AsyncIterator[tuple[Stub, str]]:
    engine, app = Stub(), web.Application()
    app.router.add_post("/v1/chat/completions", engine.chat)
    app.router.add_get("/metrics", engine.metrics)
    app.router.add_get("/health", engine.health)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield engine, f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("way", ["keep", "drop", "fill", "send"])
async def test_the_body_that_reaches_the_engine(stub: tuple[Stub, str], tmp_path: Path, way: str) -> None:
    """Two clients ask for a priority of their own, by field and by header; a third does not."""
    engine, address = stub
    target = {"type": "vllm", "endpoints": [address], "priority": way}
    scheduling = {"policy": "round-robin", "gate": "none", "ordering": "shortest-prompt"}
    write_config(tmp_path / "config.json", [address], engine=target, scheduling=scheduling)
    sent = {
        name: {"model": "m", "messages": [{"role": "user", "content": "x " * length}], "user": name, "priority": -5}
        for name, length in LENGTHS.items()
    }
    sent["silent"] = {"model": "m", "messages": [], "user": "silent"}
    with running(tmp_path / "router", "router", "--config", str(tmp_path / "config.json")) as router:
        async with aiohttp.ClientSession(headers={"X-Vllm-Priority": "-7"}) as session:
            for body in sent.values():
                async with session.post(router.url + "/v1/chat/completions", json=body) as answer:
                    assert answer.status == 200, await answer.text()

    got = {name: body.pop("priority", None) for name, body in engine.bodies.items()}
    assert engine.bodies == {name: {k: v for k, v in body.items() if k != "priority"} for name, body in sent.items()}
    assert engine.headers == ({"-7"} if way in {"keep", "fill"} else {None})
    if way == "keep":
        assert got == {"short": -5, "long": -5, "silent": None}
    elif way == "drop":
        assert got == {"short": None, "long": None, "silent": None}
    elif way == "fill":
        assert (got["short"], got["long"]) == (-5, -5)
        assert isinstance(got["silent"], int)
    else:
        assert got["silent"] < got["short"] < got["long"]
