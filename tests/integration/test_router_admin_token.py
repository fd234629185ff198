"""The bearer token of the admin port: demanded for what shows traffic, never of probes, renewed without a restart."""

import base64
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from halffull.api.model_deployment import ModelDeployment
from halffull.controller.credentials import credentials
from halffull.controller.endpoints import Endpoint
from halffull.controller.metrics import Metrics
from halffull.controller.scrape import Credentials, Scraper
from halffull.router.observability.admin import guard
from processes import Running, running
from routers import write_config

GIVEN = (None, "", "wrong", "first2", "f\xfcrst", "first")


def asked(router: Running, path: str, token: str | None) -> int:
    """Status of `GET path` with this token."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(router.admin_url + path, headers=headers), timeout=30
        ) as got:
            return int(got.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("workers", [1, 2])
def test_a_token_is_demanded(tmp_path: Path, workers: int) -> None:
    config, token = tmp_path / "router.json", tmp_path / "token"
    write_config(config, ["127.0.0.1:9"])
    token.write_text("first\n")
    options = ["--config", str(config), "--admin-token-file", str(token), "--workers", str(workers)]
    with running(tmp_path / "router", "router", *options) as router:
        for path in ("/status", "/decisions?count=1"):
            assert [asked(router, path, given) for given in GIVEN] == [401] * (len(GIVEN) - 1) + [200]
        for path in ("/healthz", "/readyz", "/metrics"):
            assert asked(router, path, None) == 200
        token.write_text("second")
        assert [asked(router, "/status", given) for given in ("first", "second")] == [401, 200]
        token.write_text("")
        assert asked(router, "/status", "") == 401
        token.unlink()
        assert asked(router, "/status", "second") == 401


class Secrets:
    """The one Secret of a cluster."""

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        data = {"bearer": base64.b64encode(b"shown\n").decode()}
        return {"data": data} if (kind, namespace, name) == ("Secret", "team", "front-admin") else None


async def test_the_operator_shows_the_token_that_the_resource_names(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("shown")

    async def status(_: web.Request) -> web.Response:
        return web.json_response({"policy": "sal"})

    application = web.Application(middlewares=guard(file))
    application.router.add_get("/status", status)
    spec = {"model": "m", "engine": {"type": "vllm", "endpoints": ["a:1"]}}
    spec["router"] = {"adminTokenSecretRef": {"name": "front-admin", "key": "bearer"}}
    owner = ModelDeployment.model_validate({"metadata": {"name": "m", "namespace": "team"}, "spec": spec})
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        scraper = Scraper(session, Metrics())
        routers = [Endpoint("r", "127.0.0.1", runner.addresses[0][1], True)]
        read, missing = await credentials(Secrets(), owner)  # type: ignore[arg-type]
        found = await scraper.routers(routers, read)
        refused = await scraper.routers(routers, Credentials())
    await runner.cleanup()
    assert not missing
    assert found["r"].document == {"policy": "sal"}
    assert refused["r"].error
