"""List and watch against a scripted API server: what a real one does rarely (tests/cluster has the real one)."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from halffull.router.sources import watch
from halffull.router.sources.kube import ApiServer
from halffull.router.sources.watch import Watch, session

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


class Api:
    """Each list is the next of `pages`, the last one for ever; each watch plays the next of `scripts`, then stays open."""

    def __init__(self) -> None:
        self.pages = [(10, [thing("a", 1)])]
        self.scripts: list[list[dict[str, Any]] | int] = []
        self.lists = 0
        self.watched: list[str] = []
        self.list_status = 200

    async def serve(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["authorization"] == "Bearer secret"
        if "watch" not in request.query:
            self.lists += 1
            if self.list_status != 200:
                return web.json_response({"message": "not today"}, status=self.list_status)
            version, things = self.pages.pop(0) if len(self.pages) > 1 else self.pages[0]
            return web.json_response({"metadata": {"resourceVersion": str(version)}, "items": things})
        assert request.query["allowWatchBookmarks"] == "true"
        self.watched.append(request.query["resourceVersion"])
        script = self.scripts.pop(0) if self.scripts else None
        if isinstance(script, int):
            return web.json_response({"message": "no"}, status=script)
        response = web.StreamResponse()
        await response.prepare(request)
        for event in script or ():
            await response.write(json.dumps(event).encode() + b"\n")
        if script is None:
            await asyncio.sleep(60)
        return response


class Seen:
    """A running watch and what it said."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self.task = task
        self.names: list[list[str]] = []
        self.failures: list[str] = []

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                assert not self.task.done(), self.task
                await asyncio.sleep(0.01)


@asynccontextmanager
async def watching(api: Api) -> AsyncIterator[Seen]:
    application = web.Application()
    application.router.add_get("/things", api.serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with session() as client:
        seen: Seen
        one = Watch(
            client,
            ApiServer(url, token="secret"),
            "/things",
            {"fieldSelector": "metadata.name=a"},
            changed=lambda objects: seen.names.append(sorted(objects)),
            failed=lambda reason: seen.failures.append(reason),  # noqa: PLW0108  # `seen` comes later
            rng=random.Random(1),
        )
        seen = Seen(asyncio.create_task(one.run()))
        yield seen
        seen.task.cancel()
        await asyncio.wait([seen.task])
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SHORTEST_STREAM_S", 0.0)


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": thing(name, version)}


async def test_events_change_the_objects_and_the_stream_goes_on_from_the_last_version() -> None:
    api = Api()
    api.scripts = [
        [event("ADDED", "b", 11), event("DELETED", "a", 12), event("MODIFIED", "b", 13)],
        [{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}}],
    ]
    async with watching(api) as seen:
        await seen.until(lambda: len(api.watched) == 3)
        assert seen.names == [["a"], ["a", "b"], ["b"], ["b"]]
    assert api.watched == ["10", "13", "20"]
    assert (api.lists, seen.failures) == (1, [])


@pytest.mark.parametrize("expired", [[{"type": "ERROR", "object": {"code": 410, "message": "too old"}}], 410])
async def test_a_version_that_is_too_old_means_list_again(expired: Any) -> None:
    api = Api()
    api.scripts = [expired]
    api.pages.append((30, [thing("c", 30)]))
    async with watching(api) as seen:
        await seen.until(lambda: len(api.watched) == 2)
        assert seen.names[-1] == ["c"]
        assert seen.failures == []
    assert api.watched == ["10", "30"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (500, "HTTP 500: no"),
        ([{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}], "watch error 500: etcd"),
        ([{"type": "ADDED"}], "KeyError"),
    ],
)
async def test_after_a_failure_it_lists_again(script: Any, said: str) -> None:
    api = Api()
    api.scripts = [script]
    async with watching(api) as seen:
        await seen.until(lambda: len(api.watched) == 2)
        assert len(seen.failures) == 1
        assert said in seen.failures[0]
    assert api.lists == 2


async def test_a_server_that_refuses_is_asked_again_and_again() -> None:
    api = Api()
    api.list_status = 403
    async with watching(api) as seen:
        await seen.until(lambda: len(seen.failures) == 2)
        assert seen.failures[0] == "ValueError: HTTP 403: not today"
        api.list_status = 200
        await seen.until(lambda: seen.names)


async def test_a_stream_that_ends_at_once_is_not_opened_in_a_hot_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SHORTEST_STREAM_S", 5.0)
    api = Api()
    api.scripts = [[], []]
    async with watching(api) as seen:
        await seen.until(lambda: len(api.watched) == 3)
    assert seen.failures == ["ValueError: the server ended the stream at once"] * 2


async def test_a_silent_server_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SILENCE_S", 0.2)
    api = Api()
    async with watching(api) as seen:
        await seen.until(lambda: api.lists == 2)
    assert "Timeout" in seen.failures[0]
