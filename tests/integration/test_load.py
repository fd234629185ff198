"""`halffull load` against a server on loopback that answers well, badly and not at all."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

pytestmark = pytest.mark.uncompiled

TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:17:{second:02}.0000000,{100 + second},{5 + second % 3}\n" for second in range(40)
)


class Endpoint:
    """A small OpenAI endpoint; `misbehave` names what it does to a request by the order of arrival."""

    def __init__(self):
        self.bodies = []
        self.misbehave = {}
        self.hold = None
        self._arrivals = asyncio.Queue()

    async def received(self, requests):
        async with asyncio.timeout(30):
            for _ in range(requests):
                await self._arrivals.get()

    async def answer(self, request):
        body = await request.json()
        number = len(self.bodies)
        self.bodies.append({**body, "path": request.path, "auth": request.headers.get("authorization")})
        self._arrivals.put_nowait(number)
        fault = self.misbehave.get(number)
        if self.hold:
            await self.hold.wait()
        if fault == "busy":
            return web.json_response({"error": {"code": 429}}, status=429, headers={"x-halffull-reason": "queue_full"})
        if fault == "reset":
            request.transport.abort()
            return web.Response()
        headers = {"x-halffull-replica": f"replica-{number % 2}"}
        tokens = body["max_tokens"]
        usage = {"prompt_tokens": 1, "completion_tokens": tokens}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"content": "a" * tokens}, "finish_reason": "length"}
            return web.json_response({"choices": [choice], "usage": usage}, headers=headers)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for token in range(tokens):
            end = "length" if token == tokens - 1 else None
            choice = {"index": 0, "delta": {"content": "a"}, "text": "a", "finish_reason": end}
            await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            if fault == "cut":
                return response
        await response.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode())
        return response


@asynccontextmanager
async def serving(endpoint):
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    app.router.add_post("/v1/completions", endpoint.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def start_load(*options):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "halffull", "load", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def load(*options):
    process = await start_load(*options)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_a_trace_is_replayed_whole(tmp_path):
    trace, figures = tmp_path / "trace.csv", tmp_path / "figures.json"
    trace.write_text(TRACE)
    endpoint = Endpoint()
    async with serving(endpoint) as url:
        status, out, _ = await load(
            "--url", url, "--model", "m", "--trace", str(trace), "--speedup", "100", "--json", str(figures),
            "--header", "Authorization: Bearer key", "--slo-ttft", "30", "--slo-tpot", "30",
        )  # fmt: skip

    assert status == 0
    assert "40 sent" in out
    found = json.loads(figures.read_text())
    assert found["requests"] == {"sent": 40, "completed": 40, "failed": {}, "streamed": 40, "shorterThanAsked": 0}
    assert found["replicas"] == {"replica-0": 20, "replica-1": 20}
    assert found["goodput"]["fraction"] == 1.0
    assert found["ttftSeconds"]["p50"] > 0
    lengths = [(len(body["messages"][0]["content"].split()), body["max_tokens"]) for body in endpoint.bodies]
    assert sorted(lengths) == [(100 + n, 5 + n % 3) for n in range(40)]  # those sent at once come in any order
    assert all(body["ignore_eos"] for body in endpoint.bodies)
    assert {body["model"] for body in endpoint.bodies} == {"m"}
    assert {body["auth"] for body in endpoint.bodies} == {"Bearer key"}


async def test_failures_are_counted_by_kind(tmp_path):
    figures = tmp_path / "figures.json"
    endpoint = Endpoint()
    endpoint.misbehave = {2: "busy", 5: "busy", 7: "cut", 9: "reset"}
    async with serving(endpoint) as url:
        status, out, _ = await load(
            "--url", url, "--model", "m", "--trace", "code", "--rate", "100", "--requests", "20", "--json", str(figures)
        )

    assert status == 1
    assert json.loads(figures.read_text())["requests"]["failed"] == {
        "HTTP 429 queue_full": 2,
        "ended without finish_reason": 1,
        "broken: ServerDisconnectedError": 1,
    }
    assert "2 x HTTP 429 queue_full" in out


async def test_part_of_the_requests_streams():
    endpoint = Endpoint()
    async with serving(endpoint) as url:
        status, out, _ = await load(
            "--url", url, "--model", "m", "--api", "completions", "--trace", "synthetic", "--prompt-tokens", "20",
            "--output-tokens", "4", "--rate", "200", "--requests", "60", "--stream-share", "0.5", "--at-most",
        )  # fmt: skip

    streamed = Counter(bool(body.get("stream")) for body in endpoint.bodies)
    assert status == 0, out
    assert streamed.total() == 60
    assert 15 < streamed[True] < 45
    assert {body["path"] for body in endpoint.bodies} == {"/v1/completions"}
    assert not any("ignore_eos" in body for body in endpoint.bodies)


async def test_the_loop_is_open():
    """An endpoint that answers nothing gets all requests all the same."""
    endpoint = Endpoint()
    endpoint.hold = asyncio.Event()
    async with serving(endpoint) as url:
        process = await start_load("--url", url, "--model", "m", "--rate", "100", "--requests", "50")
        await endpoint.received(50)
        endpoint.hold.set()
        out, _ = await process.communicate()

    assert process.returncode == 0
    assert b"50 completed" in out


async def test_ctrl_c_ends_the_sending_and_reports():
    endpoint = Endpoint()
    async with serving(endpoint) as url:
        process = await start_load("--url", url, "--model", "m", "--trace", "code", "--rate", "50")
        await endpoint.received(5)
        os.kill(process.pid, signal.SIGINT)
        out, _ = await process.communicate()

    assert process.returncode == 0
    assert b"0 failed" in out


async def test_an_endpoint_that_is_not_there():
    status, out, _ = await load("--url", "http://127.0.0.1:1", "--model", "m", "--requests", "2", "--rate", "100")

    assert status == 1
    assert "2 x cannot connect" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trace", "absent.csv"], "absent.csv"),
        (["--speedup", "2"], "use --rate"),
        (["--header", "nonsense"], "NAME:VALUE"),
        (["--rate", "0"], "more than 0"),
        (["--stream-share", "2"], "0 to 1"),
    ],
)
async def test_a_wrong_option_is_refused(options, said):
    status, _, err = await load("--model", "m", *options)

    assert status == 2
    assert said in err
