"""Usage that is asked of an engine and taken out again: against a recorded stream of vLLM that tells it in each event."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from halffull.engines.vllm import CHAT, COMPLETIONS
from halffull.router.answers.resume import continuation
from halffull.router.answers.transcript import Allowance
from halffull.router.answers.usage import OPTIONS, Wish, asking, shown, wish

RECORDING = Path(__file__).parents[2] / "recordings" / "vllm-0.32" / "chat_stream_usage.http"
STREAM = RECORDING.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")[2]
EVENTS = [event + b"\n\n" for event in STREAM.strip().split(b"\n\n")]


def documents(stream: bytes) -> list[Any]:
    events = stream.strip().split(b"\n\n")
    return [json.loads(event[6:]) for event in events if event and event != b"data: [DONE]"]


@pytest.mark.parametrize("pieces", [EVENTS, [b"".join(EVENTS)], [b"".join(EVENTS[:3]), b"".join(EVENTS[3:])]])
def test_the_client_gets_what_it_asked_for(pieces):
    told = documents(STREAM)
    without = [{name: value for name, value in chunk.items() if name != "usage"} for chunk in told if chunk["choices"]]
    nothing, total, each = (b"".join(shown(piece, wanted) for piece in pieces) for wanted in Wish)

    assert each == STREAM.strip() + b"\n\n"
    assert documents(nothing) == without
    assert documents(total) == [*without, told[-1]]
    assert all(stream.endswith(b"\n\ndata: [DONE]\n\n") for stream in (nothing, total, each))


@pytest.mark.parametrize("text", [',"usage":{"a":{}}}\n\n', '"choices":[]', '}],"usage":{}'])
def test_a_text_that_looks_like_usage_stays(text):
    chunk = {"choices": [{"text": text}], "usage": {"prompt_tokens": 1, "details": {"cached": 2}}}
    events = b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
    assert documents(shown(events + events, Wish.TOTAL)) == [{"choices": [{"text": text}]}] * 2
    assert documents(shown(events, Wish.NOTHING)) == [{"choices": [{"text": text}]}]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, Wish.NOTHING),
        ({}, Wish.NOTHING),
        ({"include_usage": False, "continuous_usage_stats": True}, Wish.NOTHING),
        ({"include_usage": True}, Wish.TOTAL),
        ({"include_usage": True, "continuous_usage_stats": True}, Wish.EACH),
    ],
)
def test_what_a_request_asks_for(options, expected):
    body = json.dumps({"prompt": "q } ", "stream_options": options}).encode()
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    assert wish(fields) is expected
    assert json.loads(asking(body, fields)) == {"prompt": "q } ", "stream_options": json.loads(OPTIONS)}


def test_the_request_keeps_its_bytes():
    body = b'{"prompt": "\\u00e9",\n "temperature": 1.0e1}\n'
    going_on, sent = continuation(COMPLETIONS, body, Allowance())
    assert going_on is not None
    assert sent == body.rstrip()[:-1] + b',"stream_options":' + OPTIONS + b"}"


@pytest.mark.parametrize("options", [b"7", b'{"include_usage":"much"}', b"[]"])
def test_malformed_options_are_the_engine_s_to_judge(options):
    body = b'{"messages":[],"stream_options":' + options + b"}"
    assert continuation(CHAT, body, Allowance()) == (None, body)


def event(text: str, prompt_tokens: int, tokens: int, finish: str | None = None) -> bytes:
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens + tokens, "completion_tokens": tokens}
    chunk = {"id": "x", "created": 1, "choices": [{"text": text, "finish_reason": finish}], "usage": usage}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def test_a_limit_on_tokens_holds_where_an_engine_held_text_back():
    """Of three tokens the first engine said two: the third may have begun a stop sequence of three characters."""
    body = b'{"prompt":"q","max_tokens":6,"stop":"END","stream_options":{"include_usage":true}}'
    going_on, _ = continuation(COMPLETIONS, body, Allowance())
    assert going_on is not None
    first = going_on.passed(event("one ", 4, 1) + event("two ", 4, 3))
    sent = json.loads(going_on.request() or b"")
    assert (sent["prompt"], sent["max_tokens"]) == ("qone two ", 5)

    going_on.seam()
    more = [event(f"t{n} ", 6, n, "length" if n == 5 else None) for n in range(1, 6)]
    rest = b"".join(going_on.passed(piece) for piece in [*more, b"data: [DONE]\n\n"])
    said = documents(first + rest)
    assert "".join(choice["text"] for chunk in said for choice in chunk["choices"]) == "one two t1 t2 t3 t4 "
    assert [choice["finish_reason"] for chunk in said for choice in chunk["choices"]] == [None] * 6 + ["length"]
    assert said[-1]["usage"] == {"prompt_tokens": 4, "total_tokens": 10, "completion_tokens": 6}
    assert rest.endswith(b"data: [DONE]\n\n")
