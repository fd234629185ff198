"""The simulated engine answers as a real vLLM 0.32 did: same keys and types at every level, same events, same metrics.

The recordings are raw answers of a vLLM 0.32 that served a tiny model under the name `tiny` with a context of 4096 tokens.
"""

import json
import re

import aiohttp
import pytest

from simulated_engines import simulated_engine

pytestmark = pytest.mark.uncompiled

MESSAGES = [{"role": "user", "content": "say something"}]
CHAT = {"model": "tiny", "messages": MESSAGES, "max_tokens": 6}
USAGE = {"stream_options": {"include_usage": True}}
CONTINUOUS = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
COMPLETION = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 6}
LAST = {"continue_final_message": True, "add_generation_prompt": False}

PLAIN = {
    "health": ("GET", "/health", None),
    "models": ("GET", "/v1/models", None),
    "tokenize": ("POST", "/tokenize", {"model": "tiny", "prompt": "Once upon a time there"}),
    "chat": ("POST", "/v1/chat/completions", CHAT),
    "embeddings": ("POST", "/v1/embeddings", {"model": "tiny", "input": "x"}),
    "err_badjson": ("POST", "/v1/completions", '{"model":tiny}'),
    "err_model": ("POST", "/v1/completions", COMPLETION | {"model": "nope"}),
    "err_toolong": ("POST", "/v1/completions", COMPLETION | {"max_tokens": 99999}),
    "err_prompt_toolong_stream": (
        "POST",
        "/v1/completions",
        COMPLETION | {"prompt": "hello " * 5000, "stream": True},
    ),
}
STREAMS = {
    "chat_stream": ("/v1/chat/completions", CHAT),
    "chat_stream_usage": ("/v1/chat/completions", CHAT | CONTINUOUS),
    "continue_final": (
        "/v1/chat/completions",
        CHAT | LAST | {"max_tokens": 4, "messages": [*MESSAGES, {"role": "assistant", "content": "as far"}]},
    ),
    "completions_stream": ("/v1/completions", COMPLETION | USAGE),
    "completions_n2_stream": ("/v1/completions", COMPLETION | {"n": 2, "max_tokens": 4}),
    "messages_stream": ("/v1/messages", {"model": "tiny", "messages": MESSAGES, "max_tokens": 6}),
    "responses_stream": ("/v1/responses", {"model": "tiny", "input": "say something", "max_output_tokens": 6}),
}


@pytest.fixture
def recording(root):
    """Reads one recorded answer: status, headers, body."""

    def read(name):
        head, _, body = (root / "tests/recordings/vllm-0.32" / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, body

    return read


def shape(value):
    """Keys in order and types of a JSON value; of a list, the distinct shapes of its items."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        shapes = [shape(item) for item in value]
        return [item for number, item in enumerate(shapes) if item not in shapes[:number]]
    return "number" if type(value) in {int, float} else type(value).__name__


def events(body):
    """The events of a stream: (name, document or raw text), each terminated by one empty line."""
    text = body.decode()
    assert text.endswith("\n\n")
    for block in text.rstrip("\n").split("\n\n"):
        match = re.fullmatch(r"(?:event: (\S+)\n)?data: (.*)", block)
        assert match is not None, block
        yield match[1], match[2] if match[2] == "[DONE]" else json.loads(match[2])


def of_choice(index, body):
    """The events of one of several interleaved answers; None: those of no answer in particular."""
    for name, document in events(body):
        choices = document.get("choices") if isinstance(document, dict) else None
        if (choices[0]["index"] if choices else None) == index:
            yield name, document


def in_order(found):
    """Shapes of a stream's events in order, with their keys' order; repetitions (tokens) once."""
    ordered = [(name, json.dumps(shape(document))) for name, document in found]
    return [one for number, one in enumerate(ordered) if number == 0 or one != ordered[number - 1]]


async def ask(engine, method, path, body, headers=None):
    data = body if isinstance(body, str) or body is None else json.dumps(body)
    sent = {"content-type": "application/json"} | (headers or {})
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, engine.url + path, data=data, headers=sent) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


@pytest.mark.parametrize("name", PLAIN)
async def test_plain_answers_have_the_recorded_form(name, recording):
    recorded_status, recorded_headers, recorded = recording(name)
    async with simulated_engine() as engine:
        status, headers, body = await ask(engine, *PLAIN[name])
    assert status == recorded_status
    assert headers.get("content-type") == recorded_headers.get("content-type")
    assert "x-request-id" in headers
    if recorded.strip():
        assert json.dumps(shape(json.loads(body))) == json.dumps(shape(json.loads(recorded)))
    else:
        assert not body


@pytest.mark.parametrize("name", ["err_badjson", "err_model", "err_toolong", "embeddings"])
async def test_refusals_are_worded_as_recorded(name, recording):
    async with simulated_engine() as engine:
        body = (await ask(engine, *PLAIN[name]))[2]
    assert json.loads(body) == json.loads(recording(name)[2])


@pytest.mark.parametrize("name", STREAMS)
async def test_streams_have_the_recorded_events(name, recording):
    path, body = STREAMS[name]
    status, recorded_headers, recorded = recording(name)
    async with simulated_engine() as engine:
        answer = await ask(engine, "POST", path, body | {"stream": True, "ignore_eos": True})
    assert answer[0] == status
    assert answer[1]["content-type"] == recorded_headers["content-type"]
    assert answer[1]["transfer-encoding"] == "chunked"
    for index in (0, 1, None):
        assert in_order(of_choice(index, answer[2])) == in_order(of_choice(index, recorded))


@pytest.mark.parametrize("name", ["chat_stream", "completions_n2_stream", "messages_stream"])
async def test_every_token_is_an_event(name, recording):
    path, body = STREAMS[name]
    async with simulated_engine() as engine:
        answer = await ask(engine, "POST", path, body | {"stream": True, "ignore_eos": True})
    assert len(list(events(answer[2]))) == len(list(events(recording(name)[2])))


async def test_the_clients_request_id_is_part_of_the_answers_id(recording):
    async with simulated_engine() as engine:
        _, headers, body = await ask(engine, *PLAIN["chat"], {"x-request-id": "req-1"})
    assert headers["x-request-id"] == "req-1" == recording("chat")[1]["x-request-id"]
    assert json.loads(body)["id"] == "chatcmpl-req-1" == json.loads(recording("chat")[2])["id"]


def families(exposition):
    """Of each metric family its type, and of each of its samples the label names."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.MULTILINE))
    samples = {}
    for name, labels in re.findall(r"^([a-zA-Z_:]+)(?:\{(.*)\})? \S+$", exposition, re.MULTILINE):
        samples.setdefault(name, set()).add(tuple(re.findall(r'(\w+)="', labels)))
    return types, samples


async def test_metrics_have_the_recorded_names_types_and_labels(root):
    recorded = (root / "tests/recordings/vllm-0.32/metrics_after.txt").read_text()
    async with simulated_engine() as engine:
        for name in ("models", "chat", "err_model"):
            await ask(engine, *PLAIN[name])
        status, headers, body = await ask(engine, "GET", "/metrics", None)
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    assert families(body.decode()) == families(recorded)


async def test_histograms_have_the_recorded_buckets(root):
    recorded = (root / "tests/recordings/vllm-0.32/metrics_idle.txt").read_text()
    pattern = re.compile(r'^(vllm:\w+)_bucket\{.*le="([^"]+)"', re.MULTILINE)
    async with simulated_engine() as engine:
        body = (await ask(engine, "GET", "/metrics", None))[2].decode()
    assert pattern.findall(body) == pattern.findall(recorded)
