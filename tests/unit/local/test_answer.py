"""Answers: tokens and the first of them are seen, and only a whole answer counts as one."""

import json

import pytest

from halffull.local.answer import Answer, error_type


def event(text=None, finish=None, **more):
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], **more})}\n\n".encode()


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":6}}\n\n'
DONE = b"data: [DONE]\n\n"


def fed(*parts):
    answer = Answer()
    for part in parts:
        answer.feed(part)
    return answer


def test_the_role_chunk_is_no_token():
    answer = Answer()

    assert not answer.feed(ROLE)
    assert answer.feed(event("a"))


def test_a_stream_cut_anywhere_reads_the_same():
    stream = ROLE + event("a") + event("b") + event(None, "stop") + USAGE + DONE
    for cut in range(len(stream)):
        answer = fed(stream[:cut], stream[cut:])
        assert (answer.text_events, answer.tokens, answer.incomplete()) == (2, 6, None)


def test_without_usage_events_with_text_are_tokens():
    assert fed(event("a"), event("b", "length"), DONE).tokens == 2


def test_lines_may_end_in_carriage_returns():
    stream = (event("a", "stop") + DONE).replace(b"\n", b"\r\n")

    assert fed(stream).incomplete() is None


def test_completions_and_reasoning_and_tools_are_text_too():
    chunks = [
        {"choices": [{"text": "a"}]},
        {"choices": [{"delta": {"reasoning_content": "a"}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]},
    ]

    assert fed(*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)).text_events == 3


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([], "ended without finish_reason"),
        ([event("a")], "ended without finish_reason"),
        ([event("a"), DONE], "ended without finish_reason"),
        ([event("a", "stop")], "ended without [DONE]"),
        ([event("a", "stop"), b"data: [DONE]"], "ended without [DONE]"),
        ([event("a", "abort"), DONE], "finish_reason abort"),
        ([b'data: {"error": {"message": "busy", "code": 503}}\n\n', DONE], "error event 503"),
        ([event("a"), b'data: {"error": "lost"}\n\n', DONE], "error event"),
        ([b"data: {nonsense\n\n"], "event is not JSON"),
        ([b"data: []\n\n"], "event is not an object"),
        ([b": a comment\n\n", event("a", "stop"), DONE], None),
    ],
)
def test_what_is_missing_is_named(parts, why):
    assert fed(*parts).incomplete() == why


def test_a_plain_answer():
    body = {"choices": [{"message": {"content": "abc"}, "finish_reason": "length"}], "usage": {"completion_tokens": 3}}
    answer = Answer()
    answer.plain(json.dumps(body).encode())

    assert (answer.tokens, answer.incomplete()) == (3, None)


def test_a_plain_answer_that_is_no_json():
    answer = Answer()
    answer.plain(b"<html>")

    assert answer.incomplete() == "answer is not JSON"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"error": {"type": "BadRequestError", "code": 400}}', "BadRequestError"),
        (b'{"error": "busy"}', ""),
        (b'{"detail": "Not Found"}', ""),
        (b"[]", ""),
        (b"<html>", ""),
    ],
)
def test_the_type_of_an_error(body, found):
    assert error_type(body) == found
