"""LoRA adapters of simulated engines: requests reach those that serve them, and stay together. Real processes on loopback."""

import json
import urllib.request
from collections import Counter

import pytest

from processes import running
from routers import admin, status, write_config


def ask(router, model):
    """The replica that answered."""
    body = json.dumps({"model": model, "prompt": "one two three", "max_tokens": 2}).encode()
    request = urllib.request.Request(f"{router.url}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["model"] == model
        return answer.headers["x-halffull-replica"]


@pytest.fixture
def fleet(tmp_path, eventually):
    """Three engines, of which two serve the adapter `one` and all serve `all`, behind a router."""
    common = ("--model", "m", "--max-loras", "2", "--lora-modules", "all=x")
    with (
        running(tmp_path / "a", "engine", *common, "one=x") as a,
        running(tmp_path / "b", "engine", *common, "one=x") as b,
        running(tmp_path / "c", "engine", *common) as c,
    ):
        write_config(tmp_path / "config.json", [f"127.0.0.1:{engine.port}" for engine in (a, b, c)],
                     scheduling={"policy": "round-robin"})  # fmt: skip
        with running(tmp_path / "router", "router", "--config", str(tmp_path / "config.json")) as router:
            eventually(lambda: {"m", "one", "all"} == models(router))
            eventually(lambda: len(status(router)["replicas"]) == 3)
            yield router, [f"127.0.0.1:{engine.port}" for engine in (a, b, c)]


def models(router):
    with urllib.request.urlopen(f"{router.url}/v1/models", timeout=30) as answer:
        return {row["id"] for row in json.load(answer)["data"]}


def test_requests_for_an_adapter_reach_only_engines_that_serve_it(fleet, eventually):
    router, (a, b, _) = fleet
    eventually(lambda: sum("one" in page["adapters"] for page in status(router)["replicas"]) == 2)
    replicas = Counter(ask(router, "one") for _ in range(20))
    assert set(replicas) <= {a, b}
    assert len(replicas) == 1, "one of them holds it"
    assert len(Counter(ask(router, "m") for _ in range(9))) == 3
    assert 'code="404"' not in admin(router, "/metrics")
