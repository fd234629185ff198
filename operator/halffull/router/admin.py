"""The admin port: `/healthz`, `/readyz`, `/metrics`, `/status`, `/decisions`. Read only; never a prompt or an answer.

`app` starts it beside the public port; kubelet, Prometheus, the operator and people call it.
"""

import json
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from halffull.router.status import Report

DECISIONS_SHOWN = 100


def application(report: Report, metrics: CollectorRegistry) -> web.Application:
    """Return the application of the admin port."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if report.ready else web.Response(status=503, text="not ready\n")

    async def expose(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    async def status(_: web.Request) -> web.Response:
        return _json(report.document())

    async def decisions(request: web.Request) -> web.Response:
        try:
            count = int(request.query.get("count", DECISIONS_SHOWN))
        except ValueError:
            return web.Response(status=400, text="count must be a whole number\n")
        return _json({"decisions": report.decisions(count)})

    made = web.Application()
    made.router.add_get("/healthz", healthz)
    made.router.add_get("/readyz", readyz)
    made.router.add_get("/metrics", expose)
    made.router.add_get("/status", status)
    made.router.add_get("/decisions", decisions)
    return made


def _json(document: dict[str, Any]) -> web.Response:
    return web.json_response(document, dumps=lambda d: json.dumps(d, separators=(",", ":")))
