"""The certificate of the external-metrics API: one that is renewed in place is used, a broken one is not."""

import asyncio
import shutil
import socket
import ssl
from pathlib import Path
from typing import cast

import pytest

from certificates import certify
from halffull.controller import external_metrics
from halffull.controller.external_metrics import Serving, served
from halffull.controller.kube import Kube

pytestmark = [
    pytest.mark.uncompiled,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificates, is missing"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_renewed_certificate_is_served_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(external_metrics, "RENEW_S", 0.05)
    folder, port = tmp_path / "tls", free_port()
    certify(folder)

    async def certificate() -> str:
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port), timeout=30)

    async def run() -> None:
        async with served(cast(Kube, None), Serving(folder, "127.0.0.1", port)), asyncio.timeout(30):
            first = (folder / "tls.crt").read_text()
            assert await certificate() in first
            (folder / "tls.key").write_text("no key")
            while "is not used" not in caplog.text:
                await asyncio.sleep(0.01)
            assert await certificate() in first
            certify(folder)
            while await certificate() in first:
                await asyncio.sleep(0.01)
            assert await certificate() in (folder / "tls.crt").read_text()

    asyncio.run(run())
