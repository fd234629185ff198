"""KV events of simulated engines reach the router: what an engine evicts is no longer taken to be cached. Real processes."""

import itertools
import json
import urllib.request

import pytest

from ups import document, get, write

pytest.importorskip("zmq")
PUBLISH = ("--kv-events-config", '{"enable_kv_cache_events": true, "endpoint": "tcp://127.0.0.1:0"}')


def ask(url, prompt, max_tokens):
    body = json.dumps({"model": "model-of-llama", "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True})
    request = urllib.request.Request(f"{url}/v1/completions", body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["usage"]["prompt_tokens"]


def uncached(admin):
    """Prompt tokens of the last request that the router took to be computed."""
    return get(f"{admin}/decisions?count=1")["decisions"][0]["prefillTokens"]


def page(admin):
    return get(f"{admin}/status")["replicas"][0]["prefixCache"]


@pytest.mark.parametrize("follows", [True, False])
def test_evictions_are_heard_of(up, file, eventually, follows):
    engine = {
        "type": "simulated",
        "template": {"args": ["--speedup", "50", "--enable-prefix-caching", "--kv-tokens", "4096", *PUBLISH]},
    }
    engine |= {"kvEvents": {}} if follows else {}
    write(file, document(replicas=1, policy="prefix-affinity", engine=engine, tokenizer={"bytesPerToken": 5}))
    url, admin = up(file).serving()
    first, second = "same " * 1500, "else " * 1000

    if follows:  # a subscription takes time: nothing is said of what was stored before
        tries = itertools.count()
        eventually(lambda: ask(url, f"t{next(tries):03d} " * 30, 1) and page(admin)["events"])
    assert ask(url, first, 1) == 1500
    assert uncached(admin) > 1400
    eventually(lambda: ask(url, first, 1) and uncached(admin) < 200)
    before = page(admin)["events"]
    ask(url, second, 2800)  # its answer needs the room
    if follows:
        eventually(lambda: page(admin)["events"] >= before + 2)
    ask(url, first, 1)
    assert (uncached(admin) > 1000) is follows  # what is left of the first one is about 200 tokens
    assert page(admin)["source"] == ("events" if follows else "estimate")
    eventually(lambda: ask(url, first, 1) and page(admin)["engineShare"])  # counted from the router's first look on
    assert 0 < page(admin)["predictedShare"] <= 1
    assert page(admin)["error"] is None
