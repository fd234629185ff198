"""HTTPS on both sides: what is served and trusted, and that renewed certificates and authorities count without a restart."""

import json
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
from routers import admin, ready_replicas, status, write_config

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


def test_the_authorities_of_engines_may_come_late_and_be_renewed(
    tmp_path: Path, eventually: Callable[..., None]
) -> None:
    path, trusted, fresh = tmp_path / "router.json", tmp_path / "ca.crt", tmp_path / "ca.new"
    certificates = [tmp_path / "a", tmp_path / "b"]
    pairs = []
    for folder in certificates:
        certify(folder)
        pairs.append(("--ssl-certfile", str(folder / "tls.crt"), "--ssl-keyfile", str(folder / "tls.key")))
    write_config(path, ["127.0.0.1:9"])
    with (
        running(tmp_path / "one", "engine", "--model", "m", *pairs[0]) as one,
        running(tmp_path / "two", "engine", "--model", "m", *pairs[1]) as two,
        running(tmp_path / "router", "router", "--config", str(path)) as router,
    ):
        places = [f"127.0.0.1:{engine.port}" for engine in (one, two)]
        engine = {"type": "simulated", "endpoints": places, "scheme": "https", "caFile": str(trusted)}
        wanted = write_config(path, places, engine=engine, scheduling={"policy": "round-robin"})
        eventually(lambda: "No such file" in (status(router)["config"]["error"] or ""))
        assert status(router)["config"]["hash"] != wanted

        trusted.write_text((certificates[0] / "tls.crt").read_text())
        eventually(lambda: status(router)["config"]["hash"] == wanted)
        eventually(lambda: ready_replicas(router) == 1)

        fresh.write_text("".join((folder / "tls.crt").read_text() for folder in certificates))
        fresh.replace(trusted)
        eventually(lambda: ready_replicas(router) == 2)
        for _ in range(4):
            body = json.dumps({"model": "m", "prompt": "a", "max_tokens": 1}).encode()
            asked = urllib.request.Request(f"{router.url}/v1/completions", body, {"content-type": "application/json"})
            with urllib.request.urlopen(asked, timeout=30) as answer:
                assert answer.status == 200
        decisions = json.loads(admin(router, "/decisions"))["decisions"]
        assert {(each["replica"], each["attempt"]) for each in decisions} == {(place, 1) for place in places}

        trusted.write_text("no certificate")
        eventually(lambda: "are not used" in router.log.read_text())
        assert ready_replicas(router) == 2
