"""Usage that is asked of an engine and taken out again: against a recorded stream of vLLM that tells it in each event."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from halffull.engines.vllm import CHAT, COMPLETIONS
from halffull.router.resume import Allowance, continuation
from halffull.router.usage import OPTIONS, Wish, asking, shown, wish

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
    body = b'{"prompt": "\\u00e9",\n "max_tokens": 1.0e1}\n'
    going_on, sent = continuation(COMPLETIONS, body, Allowance())
    assert going_on is not None
    assert sent == body.rstrip()[:-1] + b',"stream_options":' + OPTIONS + b"}"


@pytest.mark.parametrize("options", [b"7", b'{"include_usage":"much"}', b"[]"])
def test_malformed_options_are_the_engine_s_to_judge(options):
    body = b'{"messages":[],"stream_options":' + options + b"}"
    assert continuation(CHAT, body, Allowance()) == (None, body)
