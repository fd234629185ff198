"""KV events of a real vLLM: what it evicts, the router no longer takes to be cached."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from processes import Running
from routers import admin, status
from vllms import TELLS, Pool

pytest.importorskip("zmq")
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def ask(router: Running, prompt: str, max_tokens: int) -> int:
    """Prompt tokens that the router took to be computed; the model's tokens are characters."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{router.url}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert json.load(answer)["usage"]["prompt_tokens"] == len(prompt)
    found: int = json.loads(admin(router, "/decisions?count=1"))["decisions"][0]["prefillTokens"]
    return found


def test_evictions_are_heard_of(
    vllms: Pool, start_router: Callable[..., Running], eventually: Callable[..., Any]
) -> None:
    engines = vllms.lend(TELLS)
    router = start_router(
        engines, {"kvEvents": {}}, tokenizer={"bytesPerToken": 1}, scheduling={"policy": "prefix-affinity"}
    )

    def events() -> int:
        found: int = status(router)["replicas"][0]["prefixCache"]["events"]
        return found

    tries = iter(range(1000))
    eventually(lambda: ask(router, f"try {next(tries)} " * 60, 1) and events())
    first = "some text " * 200
    assert ask(router, first, 1) == len(first)
    eventually(lambda: ask(router, first, 1) < 1000)
    before = events()
    ask(router, "another text " * 200, 2400)  # 5000 of 5120 tokens
    eventually(lambda: events() > before + 5)
    assert ask(router, first, 1) > 1000
