"""What events of streams mean, errors in each API's form, usage, and what a request's body tells: against recorded answers."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halffull.core.errors import Failure, Reason
from halffull.engines.base import Dialect
from halffull.router.answers import dialect
from halffull.router.answers.dialect import Event
from halffull.router.requests import prompt

RECORDINGS = Path(__file__).parents[2] / "recordings" / "vllm-0.32"


def body(name: str) -> bytes:
    return (RECORDINGS / f"{name}.http").read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")[2]


def meanings(api: Dialect, name: str) -> list[Event]:
    return [dialect.meaning(api, event) for event in body(name).strip().split(b"\n\n")]


@pytest.mark.parametrize(
    ("api", "name", "opening"),
    [
        (Dialect.OPENAI, "chat_stream", 1),
        (Dialect.OPENAI, "chat_stream_usage", 1),
        (Dialect.OPENAI, "completions_stream", 0),
        (Dialect.OPENAI, "completions_n2_stream", 0),
        (Dialect.ANTHROPIC, "messages_stream", 2),
        (Dialect.RESPONSES, "responses_stream", 4),
    ],
)
def test_a_recorded_stream_starts_with_its_first_text(api: Dialect, name: str, opening: int) -> None:
    found = meanings(api, name)

    assert found[: opening + 1] == [Event.OPENING] * opening + [Event.STARTED]
    assert dialect.ends(api, body(name))
    assert not dialect.ends(api, body(name)[: len(body(name)) // 2])


def test_a_busy_engine_is_told_by_its_first_event() -> None:
    assert meanings(Dialect.OPENAI, "err_busy_in_stream")[0] is Event.BUSY


@pytest.mark.parametrize(
    ("api", "opening", "end"),
    [
        (Dialect.OPENAI, b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}', b"data: [DONE]"),
        (Dialect.ANTHROPIC, b'event: message_start\ndata: {"type":"message_start"}', b"event: message_stop\ndata: {}"),
    ],
)
def test_a_stream_that_ends_without_text_or_reason_was_given_up(api: Dialect, opening: bytes, end: bytes) -> None:
    """So vLLM ends the stream of a request that is aborted while it waits."""
    assert [dialect.meaning(api, event) for event in (opening, end)] == [Event.OPENING, Event.ABORTED]


@pytest.mark.parametrize(
    ("event", "meaning"),
    [
        (b": keep-alive", Event.OPENING),
        (b'data: {"choices":[],"usage":{"prompt_tokens":1}}', Event.OPENING),
        (b'data: {"choices":[{"delta":{"reasoning_content":"x"}}]}', Event.STARTED),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}', Event.STARTED),
        (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}', Event.STARTED),
        (b'data: {"choices":[{"delta":{},"finish_reason":"abort"}]}', Event.ABORTED),
        (b'data: {"error":{"code":400,"message":"too long"}}', Event.STARTED),
        (b"data: not json", Event.STARTED),
        (b"data: [DONE]", Event.ABORTED),
    ],
)
def test_events_without_text_are_openings(event: bytes, meaning: Event) -> None:
    assert dialect.meaning(Dialect.OPENAI, event) is meaning


@given(event=st.binary(max_size=200), api=st.sampled_from(Dialect))
def test_no_event_breaks_the_reader(event: bytes, api: Dialect) -> None:
    assert dialect.meaning(api, event) in Event
    dialect.stream_usage(b"data: " + event)
    dialect.usage(event)
    assert isinstance(prompt.read(event), (prompt.Prompt, Failure))


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("chat_stream", (None, None)),
        ("chat_stream_usage", (12, 6)),
        ("completions_stream", (4, 6)),
        ("messages_stream", (12, 6)),
    ],
)
def test_usage_of_recorded_streams(name: str, usage: tuple[int | None, int | None]) -> None:
    assert dialect.stream_usage(body(name)) == usage


def test_usage_of_a_recorded_responses_stream() -> None:
    prompt_tokens, generated = dialect.stream_usage(body("responses_stream"))

    assert (prompt_tokens or 0) > 0
    assert (generated or 0) > 0


def test_usage_of_a_recorded_plain_answer() -> None:
    assert dialect.usage(body("chat")) == (12, 6, "chatcmpl-req-1")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_form_in_each_api(reason: Reason) -> None:
    failure = Failure(reason, "why", "model")
    openai = json.loads(dialect.error_body(Dialect.OPENAI, failure))["error"]
    anthropic = json.loads(dialect.error_body(Dialect.ANTHROPIC, failure))

    assert openai.keys() == {"message", "type", "param", "code"}
    assert openai["code"] == reason.header
    assert anthropic["type"] == "error"
    assert anthropic["error"].keys() == {"type", "message"}
    assert dialect.error_events(Dialect.ANTHROPIC, failure).startswith(b"event: error\ndata: ")
    assert dialect.ends(Dialect.OPENAI, dialect.error_events(Dialect.OPENAI, failure))


@pytest.mark.parametrize(
    ("document", "text_bytes", "tokens"),
    [
        (
            {
                "messages": [
                    {"role": "user", "content": "hello"},
                    {"role": "user", "content": [{"type": "text", "text": "you"}]},
                ]
            },
            8,
            0,
        ),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:" + "A" * 1000}}]}]}, 0, 0),
        ({"prompt": "héllo"}, 6, 0),
        ({"prompt": ["ab", "cd"]}, 4, 0),
        ({"prompt": [1, 2, 3]}, 0, 3),
        ({"prompt": [[1, 2], [3]]}, 0, 3),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "abc"}]}], "instructions": "de"}, 5, 0),
        ({"system": [{"type": "text", "text": "abc"}], "messages": [{"content": "d"}]}, 4, 0),
    ],
)
def test_prompts_are_measured(document: dict[str, object], text_bytes: int, tokens: int) -> None:
    found = prompt.read(json.dumps(document, ensure_ascii=False).encode())

    assert isinstance(found, prompt.Prompt)
    assert (found.text_bytes, found.tokens) == (text_bytes, tokens)


def test_an_unexpected_type_is_the_engines_to_judge() -> None:
    found = prompt.read(b'{"model":"m","stream":true,"max_tokens":"many","messages":[]}')

    assert isinstance(found, prompt.Prompt)
    assert (found.model, found.stream) == ("m", True)


def test_another_model_leaves_every_other_value_as_it_is() -> None:
    body = b'{"model" : "a", "temperature": 0.10, "big": 123456789012345678901234567890, "messages": [ {"content": "\\u00e9"} ]}'

    assert prompt.with_model(body, "b") == (
        b'{"model":"b","temperature":0.10,"big":123456789012345678901234567890,"messages":[ {"content": "\\u00e9"} ]}'
    )
