"""Several router processes on one port: their admin pages are one, a worker that dies comes back, a signal drains all."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processes import Running, running
from routers import address, admin, readiness, status, write_config

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}).encode()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "engine", "engine", "--model", "m", "--speedup", "20") as engine:
        config = tmp_path / "config.json"
        write_config(config, [address(engine)])
        with running(tmp_path / "router", "router", "--config", str(config), "--workers", "2") as started:
            until(lambda: readiness(started) == 200)
            yield started


def ask(router: Running) -> int:
    headers = {"content-type": "application/json", "connection": "close"}
    request = urllib.request.Request(router.url + "/v1/chat/completions", BODY, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return len(json.load(answer)["choices"])


def children(router: Running) -> list[int]:
    return [
        int(pid) for pid in Path(f"/proc/{router.process.pid}/task/{router.process.pid}/children").read_text().split()
    ]


def metric(router: Running, name: str) -> float:
    lines = [line for line in admin(router, "/metrics").splitlines() if line.startswith((name + " ", name + "{"))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_the_admin_pages_of_all_workers_are_one(router: Running) -> None:
    assert [ask(router) for _ in range(40)] == [1] * 40
    document = status(router)

    assert len(children(router)) == 2
    assert document["requests"]["completed"] == 40
    assert len(document["replicas"]) == 1
    assert document["config"]["hash"]
    assert len(json.loads(admin(router, "/decisions"))["decisions"]) == 40
    assert metric(router, "halffull_router_requests_completed_total") == 40
    assert metric(router, "halffull_router_ready") == 1


def test_a_worker_that_dies_is_started_again(router: Running) -> None:
    dead = children(router)[0]
    os.kill(dead, signal.SIGKILL)
    until(lambda: len(children(router)) == 2 and dead not in children(router) and readiness(router) == 200)

    assert [ask(router) for _ in range(10)] == [1] * 10


def test_a_port_that_is_taken_is_told_in_a_sentence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        where = ("--host", "127.0.0.1", "--port", port, "--admin-port", "0")
        ended = subprocess.run(
            [sys.executable, "-m", "halffull", "router", "--config", "x", "--workers", "2", *where],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert ended.returncode == 1
    assert ended.stderr.startswith(f"halffull router: --host 127.0.0.1 --port {port} --admin-port 0: ")
    assert not list(tmp_path.iterdir())
