"""A stream that loses its replica any number of times, at any byte, reads as if it had not."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halffull.engines.vllm import CHAT, COMPLETIONS
from halffull.router.answers.answer import Answer
from halffull.router.answers.dialect import stream_usage
from halffull.router.answers.pattern import Pattern
from halffull.router.answers.resume import Continuation, continuation
from halffull.router.answers.transcript import Allowance
from halffull.router.answers.usage import Wish, shown

DONE = b"data: [DONE]\n\n"
ALPHABET = 'ab é漢😀\n"'
SOLID = "abcé漢😀"


@dataclass(frozen=True)
class Engine:
    """A greedy engine: the next token is a function of all text before it."""

    step: int
    """characters of a token"""
    merged: int = 1
    """tokens of an event, as of an engine that is ahead of its client"""
    usage: bool = True
    """tells it in each event where asked"""
    trims: bool = False
    """its chat template takes blanks off the ends of messages"""

    def stream(self, body: bytes, name: str) -> bytes:
        """All bytes of its answer."""
        request: dict[str, Any] = json.loads(body)
        chat = "messages" in request
        said = request["messages"][-1]["content"] if chat else request["prompt"]
        goes_on = bool(request.get("continue_final_message")) or not chat
        text = "q" + (said.strip() if self.trims else said) if chat and goes_on else said
        alphabet = SOLID if chat and self.step > 1 else ALPHABET  # where blanks fall into tokens, no seam is exact
        prompt_tokens = 5 + (len(text) - 1) // self.step if goes_on else 5
        limit, stop = request.get("max_tokens", 16), request.get("stop")
        options = request.get("stream_options") or {}
        events, written, sent, generated, reason = [], "", 0, 0, "length"

        def event(part: str | None, finish: str | None = None, *, told: bool) -> None:
            chunk: dict[str, Any] = {"id": name, "created": len(name), "object": "x", "choices": []}
            if part is not None:
                chunk["choices"] = [
                    {"index": 0, "finish_reason": finish} | ({"delta": {"content": part}} if chat else {"text": part})
                ]
            if told:
                counts = {"prompt_tokens": prompt_tokens, "completion_tokens": generated}
                chunk["usage"] = counts | {"total_tokens": prompt_tokens + generated, "details": {"cached": 0}}
            events.append(b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n")

        if chat:
            opening = {"id": name, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
            events.append(b"data: " + json.dumps(opening).encode() + b"\n\n")
        while generated < limit and reason != "stop":
            part = "".join(alphabet[(hash_of(text) + n) % len(alphabet)] for n in range(self.step))
            text, written, generated = text + part, written + part, generated + 1
            if stop and stop in written:
                written, reason = written[: written.index(stop)], "stop"
            held = len(stop) - 1 if stop and reason != "stop" and generated < limit else 0
            ready = max(len(written) - held, sent)
            if ready > sent and (generated % self.merged == 0 or generated == limit or reason == "stop"):
                event(written[sent:ready], told=self.usage and bool(options.get("continuous_usage_stats")))
                sent = ready
        event("", reason, told=self.usage and bool(options.get("continuous_usage_stats")))
        if options.get("include_usage"):
            event(None, told=True)
        return b"".join(events) + DONE


def hash_of(text: str) -> int:
    return sum(ord(char) * (place + 3) for place, char in enumerate(text[-7:])) + len(text)


def read(data: bytes) -> tuple[str, list[str], dict[str, int] | None]:
    text, finishes, usage = "", [], None
    assert data.endswith(DONE)
    for event in data.split(b"\n\n")[:-1]:
        if event == b"data: [DONE]":
            continue
        chunk = json.loads(event[5:])
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text += choice.get("text") or choice.get("delta", {}).get("content") or ""
            finishes += [choice["finish_reason"]] if choice.get("finish_reason") else []
    return text, finishes, usage


def relay(going_on: Continuation, data: bytes, pieces: list[int]) -> bytes:
    """What the client gets of these bytes, which come in pieces; without sizes, event by event."""
    answer, got, start = Answer(), b"", 0
    sizes = [*pieces, len(data)] if pieces else [len(event) + 2 for event in data.split(b"\n\n")]
    for size in sizes:
        piece = data[start : start + size]
        tokens = answer.familiar(piece)
        got += going_on.familiar(piece, tokens, answer.pattern) if tokens else going_on.passed(piece)
        start += size
        if start >= len(data):
            break
    return got


@settings(max_examples=400)
@given(
    chat=st.booleans(),
    make=st.builds(Engine, step=st.integers(1, 3), merged=st.integers(1, 3), trims=st.booleans()),
    limit=st.none() | st.integers(1, 60),
    stop=st.sampled_from([None, None, "a", "éa", "\n\n", "漢😀a"]),
    options=st.sampled_from([None, {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}]),
    deaths=st.lists(st.tuples(st.floats(0, 1), st.lists(st.integers(1, 300), max_size=8)), max_size=3),
)
def test_deaths_at_any_byte_change_nothing(
    *,
    chat: bool,
    make: Engine,
    limit: int | None,
    stop: str | None,
    options: dict[str, bool] | None,
    deaths: list[tuple[float, list[int]]],
) -> None:
    if chat and limit is None:
        limit = 60  # where the context is full, which a seam does not change, is not modelled
    request: dict[str, Any] = (
        {"stream": True}
        | ({"max_tokens": limit} if limit else {})
        | ({"messages": [{"role": "user", "content": "q"}]} if chat else {"prompt": "q"})
    )
    if make.step > 1:
        stop = None  # it would cut tokens in two, and no seam within a token is exact
    request |= ({"stop": stop} if stop else {}) | ({"stream_options": options} if options else {})
    body = json.dumps(request).encode()
    whole = read(make.stream(body, "first"))
    allowance = Allowance()
    going_on, body = continuation(CHAT if chat else COMPLETIONS, body, allowance)
    assert going_on is not None
    got, ended = b"", False
    for number, (share, pieces) in enumerate(deaths):
        data = make.stream(body, "first" if number == 0 else f"later{number}")
        started = 0 if number else len(b"\n\n".join(data.split(b"\n\n")[: 1 + chat])) + 2
        got += relay(going_on, data[: max(int(share * (len(data) - 1)), started)], pieces)
        if (missing := going_on.ending()) is not None:
            got, ended = got + missing, True
            break
        next_body = going_on.request()
        assert next_body is not None
        body = next_body
        going_on.seam()
    if not ended:
        got += relay(going_on, make.stream(body, "first" if not deaths else "last"), [17, 400])
    text, finishes, told = read(got)

    assert text == whole[0]
    assert finishes == whole[1]
    events = [event for event in got.split(b"\n\n") if event and event != b"data: [DONE]"]
    assert {json.loads(event[5:])["id"] for event in events} == {"first"}
    assert [b'"usage"' in event for event in events].count(True) == (
        0 if not options else 1 if len(options) == 1 else len(events) - chat
    )
    if options:
        assert told is not None
        assert (told["prompt_tokens"], told["completion_tokens"]) == (5, whole[2]["completion_tokens"])
        assert told["total_tokens"] == told["prompt_tokens"] + told["completion_tokens"]
    going_on.close()
    assert allowance.take(64 << 20)


@given(st.lists(st.tuples(st.text(max_size=4), st.booleans()), min_size=1, max_size=12), st.sampled_from([0, 1, 2]))
def test_what_is_known_again_is_what_reading_says(said: list[tuple[str, bool]], usage: int) -> None:
    """Texts and ends in any order, in pieces of one or two events: what is compared says what is read."""
    pattern = Pattern()
    for number, (text, two) in enumerate(said):
        told = {"prompt_tokens": 7, "completion_tokens": number, "details": {"cached": 4}}
        choices = {"choices": [{"text": text, "finish_reason": "stop" if text == "00" else None}]}
        chunk = {"id": "a"} | [choices, choices | {"usage": told}, {"usage": told} | choices][usage]
        event = b"data: " + json.dumps(chunk, separators=(",", ":"), ensure_ascii=number % 2 == 0).encode() + b"\n\n"
        piece = event + event if two else event
        events = pattern.known(piece)
        if events:
            assert events == 1 + two
            assert json.loads(b'"%b"' % pattern.text) == text * events
            assert pattern.bare == shown(piece, Wish.NOTHING)
            assert text != "00"
        else:
            pattern.learn(piece)
            plain = '"' not in text and not text.endswith("\\") and '"' not in json.dumps(text)[1:-1]
            assert pattern.known(piece) == (1 + two if plain and text != "00" and usage < 2 else 0)


def test_memory_is_bounded_for_one_and_for_all() -> None:
    body = b'{"prompt":"q","stream":true}'
    long = b'data: {"id":"a","choices":[{"text":"' + b"x" * 30000 + b'"}]}\n\n'
    allowance = Allowance(400 << 10)
    (first, _), (second, _) = (continuation(COMPLETIONS, body, allowance) for _ in range(2))
    assert first is not None
    assert second is not None
    for _ in range(8):
        assert first.passed(long) == long
    assert first.request() is not None
    for _ in range(8):
        second.passed(long)
    assert second.request() is None, "both together are over the allowance"
    for _ in range(3):
        first.passed(long)
    assert first.request() is None, "one is over its limit"
    assert allowance.take(300 << 10), "one that is not continued any more keeps nothing"
    first.close()
    second.close()
    assert allowance.take(100 << 10)


def test_bounds_are_of_bytes() -> None:
    allowance = Allowance(30000)
    going_on, _ = continuation(COMPLETIONS, b'{"prompt":"q","stream":true}', allowance)
    assert going_on is not None
    going_on.passed(b'data: {"id":"a","choices":[{"text":"%s"}]}\n\n' % ("漢" * 20000).encode())

    assert going_on.request() is None


@pytest.mark.parametrize("before", [b"id: 1\n", b"event: chunk\n", b": still here\n", b"retry: 5\n", b"\n"])
def test_text_in_an_event_of_another_form_is_neither_lost_nor_said_again(before: bytes) -> None:
    event = b'data: {"id":"a","choices":[{"text":"%b"}]}\n\n'
    going_on, _ = continuation(COMPLETIONS, b'{"prompt":"q","stream":true}', Allowance())
    assert going_on is not None
    assert going_on.passed(event % b"one") == event % b"one"
    assert going_on.request() is not None
    going_on.seam()

    assert b'"two"' in going_on.passed(before + event % b"two")
    assert going_on.request() is None


@pytest.mark.parametrize("name", ["max_tokens", "min_tokens"])
@pytest.mark.parametrize("value", [b"10.0", b'"10"', b"true", b"[10]"])
def test_a_limit_whose_form_is_not_known_is_the_engines_to_judge(name: str, value: bytes) -> None:
    body = b'{"prompt":"q","stream":true,"%b":%b}' % (name.encode(), value)

    assert continuation(COMPLETIONS, body, Allowance()) == (None, body)


def test_an_answer_whose_end_was_lost_counts_all_its_tokens() -> None:
    said = {"id": "a", "choices": [{"text": "x"}], "usage": {"prompt_tokens": 3, "completion_tokens": 0}}
    for limit, ends in ((9, True), (5, False)):
        body = b'{"prompt":"q","stream":true,"max_tokens":%d}' % limit
        going_on, _ = continuation(COMPLETIONS, body, Allowance())
        assert going_on is not None
        stream = b""
        for number in range(1, 6):
            said["usage"] = {"prompt_tokens": 3, "completion_tokens": number}
            stream += b"data: " + json.dumps(said, separators=(",", ":")).encode() + b"\n\n"
        if ends:
            stream += b'data: {"id":"a","choices":[{"text":"","finish_reason":"stop"}]}\n\n'
        relay(going_on, stream, [])

        assert going_on.ending() is not None
        assert stream_usage(going_on.usage_in) == (3, 5)
