"""What other clients do on the wire: curl, raw requests, other APIs than OpenAI's, metrics, a policy edit under load."""

import http.client
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from clients.conftest import MODEL, Fleet, RunningRouter
from halffull.api.scheduling import Scheduling
from halffull.controller.endpoints import Endpoint
from halffull.controller.metrics import Metrics
from halffull.controller.scrape import Credentials, Scraper
from halffull.engines.catalog import ENGINES

Eventually = Callable[..., None]
JSON = "application/json"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 6}


def call(url: str, path: str, body: Any = None) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own; the body as JSON, or raw bytes as they are."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if data is None else {"content-type": JSON}
        connection.request("GET" if data is None else "POST", path, data, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not in PATH")
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
def test_curl(router: RunningRouter, version: str) -> None:
    """curl asks to upgrade to HTTP/2 in its own way; the answer stays HTTP/1.1, as an engine's would."""
    body = json.dumps({**CHAT, "stream": True})
    command = ["curl", "-sS", "--fail", version, "--max-time", "60", "-H", "content-type: application/json", "-d", body]
    answer = subprocess.run(
        [*command, f"{router.url}/v1/chat/completions"], capture_output=True, text=True, check=True
    ).stdout
    events = [line for line in answer.split("\n\n") if line]
    assert events[-1] == "data: [DONE]"
    assert all(event.startswith("data: ") for event in events)
    assert json.loads(events[0][6:])["object"] == "chat.completion.chunk"


def test_an_offer_to_upgrade_is_ignored(router: RunningRouter) -> None:
    """Java's client offers h2c with every request; its body counts, and the connection goes on."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    connection = http.client.HTTPConnection(urlsplit(router.url).netloc, timeout=60)
    try:
        for _ in range(2):
            connection.request("POST", "/v1/chat/completions", json.dumps(CHAT), {"content-type": JSON, **offer})
            answer = connection.getresponse()
            document = json.loads(answer.read())
            assert (answer.status, answer.getheader("upgrade")) == (200, None), document
            assert document["object"] == "chat.completion"
    finally:
        connection.close()


def test_an_answer_arrives_as_the_engine_made_it(router: RunningRouter, fleet: Fleet) -> None:
    """Status, content type and document are the engine's; only the router's own headers are added."""
    status, headers, body = call(router.url, "/tokenize", {"model": MODEL, "prompt": "hello"})
    direct_status, direct_headers, direct_body = call(fleet.urls[0], "/tokenize", {"model": MODEL, "prompt": "hello"})
    assert (status, headers["content-type"]) == (direct_status, direct_headers["content-type"])
    assert json.loads(body) == json.loads(direct_body)
    assert headers["x-halffull-replica"] in {replica["name"] for replica in router.replicas()}


def test_anthropic_messages(router: RunningRouter) -> None:
    request = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 6}
    status, _, body = call(router.url, "/v1/messages", request)
    assert status == 200
    assert json.loads(body)["type"] == "message"
    status, headers, body = call(router.url, "/v1/messages", {**request, "stream": True})
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    names = [line.removeprefix(b"event: ") for line in body.splitlines() if line.startswith(b"event: ")]
    assert (names[0], names[-1]) == (b"message_start", b"message_stop")


def test_no_json(router: RunningRouter) -> None:
    status, headers, body = call(router.url, "/v1/chat/completions", b'{"model": ')
    assert status == 400
    assert headers["content-type"].startswith("application/json")
    assert json.loads(body)["error"]["message"]


@pytest.mark.parametrize("path", ["/sleep", "/reset_prefix_cache", "/collective_rpc"])
def test_administrative_paths_are_refused(router: RunningRouter, path: str) -> None:
    status, _, body = call(router.url, path, {})
    assert status == 403
    assert json.loads(body)["error"]["message"]


def test_other_paths_do_not_exist(router: RunningRouter) -> None:
    assert call(router.url, "/v1/nothing", {})[0] == 404


def test_one_connection_serves_many_requests(router: RunningRouter) -> None:
    connection = http.client.HTTPConnection(urlsplit(router.url).netloc, timeout=60)
    try:
        for number in range(20):
            body = json.dumps({**CHAT, "stream": number % 2 == 0})
            connection.request("POST", "/v1/chat/completions", body, {"content-type": JSON})
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.read()
    finally:
        connection.close()


def test_adapter_and_router_read_the_engines_metrics(
    router: RunningRouter, fleet: Fleet, eventually: Eventually
) -> None:
    before = fleet.signals()
    for _ in range(4):
        assert call(router.url, "/v1/chat/completions", CHAT)[0] == 200
    after = fleet.signals()
    for signals in after:
        assert signals.running is not None
        assert signals.waiting is not None
        assert signals.kv_usage is not None
        assert signals.kv_tokens is not None
        assert signals.kv_tokens > 0
    made = sum(
        (now.generation_tokens or 0) - (then.generation_tokens or 0) for then, now in zip(before, after, strict=True)
    )
    assert made == 4 * CHAT["max_tokens"]
    eventually(lambda: all(replica["signals"]["state"] == "fresh" for replica in router.replicas()))
    assert [replica["kvTokens"] for replica in router.replicas()] == [signals.kv_tokens for signals in after]


async def test_the_operator_reads_engines_and_router(router: RunningRouter, fleet: Fleet) -> None:
    addresses = [urlsplit(url) for url in (*fleet.urls, router.admin_url)]
    *engines, routers = (Endpoint(url.netloc, url.hostname or "", url.port or 0, ready=None) for url in addresses)
    async with aiohttp.ClientSession() as session:
        scraper = Scraper(session, Metrics())
        found = await scraper.engines(engines, ENGINES[fleet.type], Credentials())
        told = await scraper.routers([routers], Credentials())
    assert set(found) == {replica["name"] for replica in router.replicas()}
    assert all(signals.running is not None and signals.kv_tokens for signals in found.values())
    assert told[routers.name].error == ""
    assert told[routers.name].config["hash"] == router.config.hash


def test_no_request_notices_a_policy_edit(router: RunningRouter, eventually: Eventually) -> None:
    """Requests run all the while; each ends well, and each policy is the one in force at some time."""
    stop = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        while not stop.is_set():
            status, _, body = call(router.url, "/v1/chat/completions", {**CHAT, "stream": True})
            statuses.append(status if body.endswith(b"data: [DONE]\n\n") else 0)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for policy in ("round-robin", "random", "least-requests", "power-of-two", "sal"):
            config = router.config.model_copy(
                update={"scheduling": Scheduling.model_validate({"policy": policy})}
            ).seal()
            router.write(config)
            eventually(lambda wanted=config.hash: router.status()["config"]["hash"] == wanted)
            assert router.status()["policy"] == policy
            seen = len(statuses)
            eventually(lambda seen=seen: len(statuses) >= seen + 4)
    finally:
        stop.set()
        for client in clients:
            client.join()
        router.write(router.config)
    assert set(statuses) == {200}
