"""The scale signal as an external metric, for HorizontalPodAutoscalers without a metrics adapter. Run by `app` where asked to.

An APIService of the chart has the API server hand requests for `external.metrics.k8s.io` on to this, after its own RBAC allowed
them. Every operator answers alike, the one that acts and those that stand by: from `status.desiredReplicas`, read for each
request. Who calls directly is not asked who it is and learns no more than `/metrics` tells.
"""

import asyncio
import datetime as dt
import logging
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from halffull.controller.kube import ApiError, Document, Kube

LOG = logging.getLogger(__name__)
RENEW_S = 60.0
"""between two looks at the certificate, which is renewed in its files: one that expires stops autoscalers, and deletions of
namespaces with them"""
GROUP_VERSION = "external.metrics.k8s.io/v1beta1"
METRIC = "halffull_operator_desired_replicas"
"""the same name as in `/metrics`, so that the same autoscaler goes with Prometheus' adapter"""
LABEL = "model_deployment"
_ONE = re.compile(rf"{LABEL}={{1,2}}([a-z0-9.-]+)|{LABEL} in \(([a-z0-9.-]+)\)")


@dataclass(frozen=True, slots=True)
class Serving:
    """Where to serve, with `tls.crt` and `tls.key` of `certificate`, a folder."""

    certificate: Path
    host: str
    port: int

    def tls(self) -> ssl.SSLContext:
        """Return how to identify ourselves. Raises OSError where the files are not there or not a certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._load(context)
        return context

    def renew(self, context: ssl.SSLContext) -> None:
        """Use what is in the files now for new connections; what cannot be used is logged, and the last one stays."""
        try:
            self.tls()  # a load that fails half-way would leave `context` with a certificate and another's key
            self._load(context)
        except OSError as error:
            LOG.warning("the certificate in %s is not used: %s", self.certificate, error)

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self.certificate / "tls.crt", self.certificate / "tls.key")


@asynccontextmanager
async def served(kube: Kube, serving: Serving | None) -> AsyncIterator[None]:
    """Serve within this context; None: nothing. Raises OSError where that cannot be."""
    if serving is None:
        yield
        return
    runner = web.AppRunner(application(kube), access_log=None)
    await runner.setup()
    try:
        context = serving.tls()
        await web.TCPSite(runner, serving.host, serving.port, ssl_context=context).start()
        renewing = asyncio.create_task(_renew(serving, context))
        try:
            yield
        finally:
            renewing.cancel()
    finally:
        await runner.cleanup()


async def _renew(serving: Serving, context: ssl.SSLContext) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        serving.renew(context)


def application(kube: Kube) -> web.Application:
    """Return the server of the API: its discovery, by which it is found available, and the metric."""

    async def discovery(_: web.Request) -> web.Response:
        return web.json_response(resources())

    async def metric(request: web.Request) -> web.Response:
        try:
            name = model_deployment(request.query.get("labelSelector", ""))
        except ValueError as error:
            return _failure(400, "BadRequest", str(error))
        namespace = request.match_info["namespace"]
        try:
            if name is None:
                documents = await kube.items("ModelDeployment", namespace)
            else:
                found = await kube.get("ModelDeployment", namespace, name)
                documents = [found] if found else []
        except ApiError as error:
            return _failure(503, "ServiceUnavailable", str(error))
        return web.json_response(values(documents, dt.datetime.now(dt.UTC)))

    app = web.Application()
    root = f"/apis/{GROUP_VERSION}"
    app.add_routes([web.get(root, discovery), web.get(f"{root}/namespaces/{{namespace:[a-z0-9-]+}}/{METRIC}", metric)])
    return app


def resources() -> Document:
    """Return what the API has."""
    resource = {"name": METRIC, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList"}
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": GROUP_VERSION,
        "resources": [{**resource, "verbs": ["get"]}],
    }


def model_deployment(selector: str) -> str | None:
    """Return the ModelDeployment that a label selector names; None: it is empty, all of them. Raises ValueError for others."""
    if not selector:
        return None
    found = _ONE.fullmatch(selector)
    if found is None:
        raise ValueError(f"the label selector must be {LABEL}=NAME or empty, not {selector!r}")
    return found[1] or found[2]


def values(documents: list[Document], now: dt.datetime) -> Document:
    """Return one value for each ModelDeployment whose demand is known."""
    items: list[dict[str, Any]] = []
    for document in documents:
        desired = (document.get("status") or {}).get("desiredReplicas")
        if desired is not None:
            items.append({
                "metricName": METRIC,
                "metricLabels": {LABEL: document["metadata"]["name"]},
                "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "value": str(desired),
            })  # fmt: skip
    return {"kind": "ExternalMetricValueList", "apiVersion": GROUP_VERSION, "metadata": {}, "items": items}


def _failure(code: int, reason: str, message: str) -> web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return web.json_response({**status, "code": code, "reason": reason, "message": message}, status=code)
