"""The admin port: `/healthz`, `/readyz`, `/metrics`, `/status`, `/decisions`, `/recording`. Never a prompt or an answer.

`app` starts it beside the public port; kubelet, Prometheus, the operator and people call it.
"""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric

from halffull.router.observability.status import Report

DECISIONS_SHOWN = 100
GUARDED = frozenset({"/status", "/decisions", "/recording"})
"""what a token guards; probes and Prometheus have none"""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(
    report: Report,
    metrics: CollectorRegistry,
    recording: Callable[[], AsyncIterator[bytes]],
    token_file: Path | None = None,
) -> web.Application:
    """Return the application of the admin port; `token_file` as for `guard`."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if report.ready else web.Response(status=503, text="not ready\n")

    async def expose(_: web.Request) -> web.Response:
        text = await exposition(metrics)
        return web.Response(body=text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    async def status(_: web.Request) -> web.Response:
        return _json(report.document())

    async def decisions(request: web.Request) -> web.Response:
        try:
            count = int(request.query.get("count", DECISIONS_SHOWN))
        except ValueError:
            return web.Response(status=400, text="count must be a whole number\n")
        return _json({"decisions": report.decisions(count)})

    async def recorded(request: web.Request) -> web.StreamResponse:
        return await streamed(request, recording())

    made = web.Application(middlewares=guard(token_file))
    made.router.add_get("/healthz", healthz)
    made.router.add_get("/readyz", readyz)
    made.router.add_get("/metrics", expose)
    made.router.add_get("/status", status)
    made.router.add_get("/decisions", decisions)
    made.router.add_get("/recording", recorded)
    return made


async def exposition(metrics: CollectorRegistry) -> bytes:
    """Return all metrics as text, without holding up the data path: it has a turn after each family, and text is made beside it."""
    families = []
    for family in metrics.collect():
        families.append(family)
        await asyncio.sleep(0)
    return await asyncio.to_thread(generate_latest, _Collected(families))


class _Collected(CollectorRegistry):
    """Families that were collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


async def streamed(request: web.Request, lines: AsyncIterator[bytes]) -> web.StreamResponse:
    """Answer with JSON lines as they come."""
    response = web.StreamResponse(headers={"content-type": "application/jsonl"})
    await response.prepare(request)
    async for piece in lines:
        await response.write(piece)
    await response.write_eof()
    return response


def guard(token_file: Path | None) -> list[Any]:
    """Return the middlewares that demand the bearer token of this file for what is GUARDED; None: it is open.

    The file is read at each request, so that a new token counts at once; while there is none, nobody is let in.
    """
    if token_file is None:
        return []

    @web.middleware
    async def demand(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in GUARDED or _matches(request.headers.get("authorization", ""), token_file):
            return await handler(request)
        return web.Response(status=401, text="a bearer token is needed\n", headers={"www-authenticate": "Bearer"})

    return [demand]


def _matches(authorization: str, token_file: Path) -> bool:
    try:
        token = token_file.read_bytes().strip()
    except OSError:
        return False
    kind, _, given = authorization.partition(" ")
    return bool(token) and kind.lower() == "bearer" and hmac.compare_digest(_raw(given.strip()), token)


def _raw(header: str) -> bytes:
    """Return a header as it came: aiohttp keeps bytes that are no UTF-8 as surrogates."""
    return header.encode(errors="surrogateescape")


def _json(document: dict[str, Any]) -> web.Response:
    return web.json_response(document, dumps=lambda d: json.dumps(d, separators=(",", ":")))
