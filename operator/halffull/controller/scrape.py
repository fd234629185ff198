"""Asks engines for their metrics and routers for their status, over HTTP. Called by `rounds`.

A whole fleet is asked at once, within a bound on concurrent requests and a time limit; who does not answer is left out.
"""

import asyncio
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from halffull.controller.endpoints import Endpoint
from halffull.controller.facts import RouterAnswer
from halffull.controller.metrics import Metrics
from halffull.core.values import Signals
from halffull.engines.base import Adapter

CONCURRENT = 64
TIMEOUT_S = 3.0
LARGEST_ANSWER = 4 << 20
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the engines and routers of one ModelDeployment are called."""

    scheme: str = "http"
    ca: str = ""
    """certificate authorities in PEM; empty: those of this machine"""
    api_key: str = ""
    admin_token: str = ""
    """what its routers demand before they say anything; empty: nothing"""

    def tls(self) -> ssl.SSLContext | None:
        """Return how a server is verified: by its authority, not by its name, since pods are called by address.

        Raises ssl.SSLError where `ca` holds no certificate.
        """
        if self.scheme == "http":
            return None
        authority = self.ca.encode(
            "ascii", errors="ignore"
        ).decode()  # certificates are; comments in bundles need not be
        context = ssl.create_default_context(cadata=authority or None)
        context.check_hostname = False
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # private authorities often state no key usage
        return context


class Scraper:
    """Asks over one HTTP session."""

    def __init__(self, session: aiohttp.ClientSession, metrics: Metrics) -> None:
        self._session = session
        self._metrics = metrics
        self._slots = asyncio.Semaphore(CONCURRENT)

    async def engines(
        self, endpoints: Iterable[Endpoint], adapter: Adapter, credentials: Credentials
    ) -> dict[str, Signals]:
        """Return the signals of the engines whose metrics could be read."""
        try:
            tls = credentials.tls()
        except ssl.SSLError:
            self._metrics.scrape_failures.labels("engine").inc()
            return {}
        headers = {"authorization": f"Bearer {credentials.api_key}"} if credentials.api_key else {}
        asked = list(endpoints)
        answers = await asyncio.gather(
            *(
                self._get("engine", f"{credentials.scheme}://{e.address}{adapter.metrics_path}", headers, tls)
                for e in asked
            )
        )
        return {
            endpoint.name: adapter.signals(answer)
            for endpoint, answer in zip(asked, answers, strict=True)
            if isinstance(answer, bytes)
        }

    async def routers(self, endpoints: Iterable[Endpoint], credentials: Credentials) -> dict[str, RouterAnswer]:
        """Return what each router says of itself, or why it does not."""
        token = credentials.admin_token
        headers = {"authorization": f"Bearer {token}"} if token else {}
        asked = list(endpoints)
        answers = await asyncio.gather(
            *(self._get("router", f"http://{e.address}/status", headers, None) for e in asked)
        )
        return {endpoint.name: _answer(answer) for endpoint, answer in zip(asked, answers, strict=True)}

    async def _get(
        self, target: str, url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None
    ) -> bytes | Exception:
        """Return the body of a 200, or what went wrong."""
        self._metrics.scrapes.labels(target).inc()
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                self._slots,
                self._session.get(
                    url, headers=headers, ssl=tls or True, timeout=timeout, allow_redirects=False
                ) as response,
            ):
                if response.status != 200:
                    raise ValueError(f"answered {response.status}")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > LARGEST_ANSWER:
                        raise ValueError("answer too large")
                return bytes(body)
        except _FAILURES as error:
            self._metrics.scrape_failures.labels(target).inc()
            return error


def _answer(answer: bytes | Exception) -> RouterAnswer:
    if isinstance(answer, Exception):
        why = (
            str(answer) if type(answer) is ValueError else type(answer).__name__
        )  # ours says what, others say it at length
        return RouterAnswer(error=f"status unknown: {why}")
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        document = None
    return (
        RouterAnswer(document) if _is_status(document) else RouterAnswer(error="status unknown: not that of a router")
    )


def _is_status(document: Any) -> bool:
    """Whether an answer has the form of a router's `/status`, as far as it is read here."""
    if not isinstance(document, dict):
        return False
    config, queue, replicas = (document.get(part) or {} for part in ("config", "queue", "replicas"))
    if not isinstance(config, dict) or not isinstance(queue, dict):
        return False
    return not replicas or (isinstance(replicas, list) and all(isinstance(row, dict) for row in replicas))
