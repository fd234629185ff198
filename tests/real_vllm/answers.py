"""Asks a router for streamed and plain answers, and reads them as a client does."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from processes import Running
from routers import status

GREEDY = {"model": "tiny", "temperature": 0, "ignore_eos": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass
class Reply:
    """What came of one request."""

    status: int = 0
    replica: str = ""
    reason: str = ""
    text: str = ""
    finish: str = ""
    error: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    done: bool = False
    ids: set[str] = field(default_factory=set)
    retry_after: str | None = None


def chat(words: str, tokens: int, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", GREEDY | {"messages": [{"role": "user", "content": words}], "max_tokens": tokens} | (
        fields or USAGE
    )


def completion(words: str, tokens: int, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", GREEDY | {"prompt": words, "max_tokens": tokens} | (fields or USAGE)


async def ask(
    session: aiohttp.ClientSession, url: str, request: tuple[str, dict[str, Any]], reply: Reply | None = None
) -> Reply:
    """Send one request; `reply`, where given, is filled as the answer comes."""
    path, body = request
    reply = reply or Reply()
    async with session.post(url + path, json=body) as answer:
        headers = answer.headers
        reply.status, reply.replica = answer.status, headers.get("x-halffull-replica", "")
        reply.reason = headers.get("x-halffull-reason", "")
        reply.retry_after = headers.get("retry-after")
        if not headers["content-type"].startswith("text/event-stream"):
            _take(reply, await answer.json())
            return reply
        async for line in answer.content:
            data = line.removeprefix(b"data: ").strip()
            if data == b"[DONE]":
                reply.done = True
            elif data:
                _take(reply, json.loads(data))
        return reply


def _take(reply: Reply, document: dict[str, Any]) -> None:
    reply.error = document.get("error", reply.error)
    reply.usage = document.get("usage") or reply.usage
    if "id" in document:
        reply.ids.add(document["id"])
    for choice in document.get("choices", ()):
        said = choice.get("delta") or choice.get("message") or {}
        reply.text += choice.get("text") or said.get("content") or ""
        reply.finish = choice.get("finish_reason") or reply.finish


def client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=240))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


def replica(router: Running, address: str) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in status(router)["replicas"] if r["name"] == address)
    return found
