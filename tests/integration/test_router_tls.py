"""HTTPS on the public port: what is served, and that a renewed certificate is used without a restart."""

import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from certificates import certify
from halffull.router.http.tls import ServerTls
from processes import running
from routers import write_config

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificates, is missing"
)


def served(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=30)


def test_https_with_a_certificate_that_is_renewed(tmp_path: Path, eventually: Callable[..., None]) -> None:
    folder, path = tmp_path / "tls", tmp_path / "router.json"
    certify(folder)
    write_config(path, ["127.0.0.1:9"])
    with running(tmp_path / "router", "router", "--config", str(path), "--tls", str(folder)) as router:
        assert f"serving https://127.0.0.1:{router.port}" in router.log.read_text()
        trusted = ssl.create_default_context(cafile=folder / "tls.crt")
        with urllib.request.urlopen(f"https://127.0.0.1:{router.port}/v1/models", context=trusted) as answer:
            assert answer.status == 200
        before = served(router.port)
        certify(folder)
        eventually(lambda: served(router.port) != before)
        assert served(router.port) in (folder / "tls.crt").read_text()


def test_a_broken_renewal_keeps_the_last_good_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "tls"
    certify(folder)
    tls = ServerTls(folder)
    key = (folder / "tls.key").read_text()
    (folder / "tls.key").write_text("no key")
    tls.renew()
    assert "not used" in caplog.text
    caplog.clear()
    tls.renew()
    assert "not used" not in caplog.text, "it is asked every second"
    (folder / "tls.key").write_text(key)
    caplog.clear()
    tls.renew()
    assert "not used" not in caplog.text


def test_a_missing_certificate_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    command = ["halffull", "router", "--config", "x", "--tls", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "tls.crt" in done.stderr
