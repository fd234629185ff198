"""A stream that loses its replica any number of times, at any byte, reads as if it had not."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from halffull.engines.vllm import CHAT, COMPLETIONS
from halffull.router.resume import Allowance, Continuation, continuation

DONE = b"data: [DONE]\n\n"
ALPHABET = 'ab é漢😀\n"'


def engine(body: bytes, name: str, step: int) -> bytes:
    """All bytes that a greedy engine streams: the next `step` characters are a function of all text before them."""
    request: dict[str, Any] = json.loads(body)
    chat = "messages" in request
    said = request["messages"][-1]["content"] if chat else request["prompt"]
    text, events = ("q" + said if chat and request.get("continue_final_message") else said), []
    begun = len(text) - 1 if request.get("continue_final_message") or not chat else 0
    limit, stop, reason, written = request.get("max_tokens", 60), request.get("stop"), "length", ""

    def event(part: str, finish: str | None, usage: dict[str, int] | None = None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish} | (
            {"delta": {"content": part}} if chat else {"text": part}
        )
        chunk = {"id": name, "created": len(name), "object": "x", "choices": [] if usage else [choice], "usage": usage}
        return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"

    if chat:
        opening = {"id": name, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
        events.append(b"data: " + json.dumps(opening).encode() + b"\n\n")
    for _ in range(limit):
        part = "".join(ALPHABET[(hash_of(text) + n) % len(ALPHABET)] for n in range(step))
        if stop and stop in written + part:
            reason = "stop"
            break
        text, written = text + part, written + part
        events.append(event(part, None))
    events.append(event("", reason))
    if request.get("stream_options"):
        prompt_tokens = 5 + begun // step
        generated = len(written) // step
        used = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": prompt_tokens + generated,
        }
        events.append(event("", None, used))
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


def stream(going_on: Continuation, data: bytes, pieces: list[int]) -> bytes:
    """What the client gets of these bytes, which come in pieces."""
    got, start = b"", 0
    for size in [*pieces, len(data)]:
        got += going_on.passed(data[start : start + size])
        start += size
        if start >= len(data):
            break
    return got


@given(
    chat=st.booleans(),
    step=st.integers(1, 3),
    limit=st.integers(1, 60),
    usage=st.booleans(),
    deaths=st.lists(st.tuples(st.floats(0, 1), st.lists(st.integers(1, 300), max_size=8)), max_size=3),
)
def test_deaths_at_any_byte_change_nothing(
    chat: bool, step: int, limit: int, usage: bool, deaths: list[tuple[float, list[int]]]
) -> None:
    request: dict[str, Any] = {"stream": True, "max_tokens": limit} | (
        {"messages": [{"role": "user", "content": "q"}]} if chat else {"prompt": "q"}
    )
    if usage:
        request["stream_options"] = {"include_usage": True}
    body = json.dumps(request).encode()
    whole = read(engine(body, "first", step))
    allowance = Allowance()
    going_on = continuation(CHAT if chat else COMPLETIONS, body, allowance)
    assert going_on is not None
    got, ended = b"", False
    for number, (share, pieces) in enumerate(deaths):
        data = engine(body, "first" if number == 0 else f"later{number}", step)
        started = 0 if number else len(b"\n\n".join(data.split(b"\n\n")[: 1 + chat])) + 2
        got += stream(going_on, data[: max(int(share * (len(data) - 1)), started)], pieces)
        if (missing := going_on.ending()) is not None:
            got, ended = got + missing, True
            break
        next_body = going_on.request()
        assert next_body is not None
        body = next_body
        going_on.seam()
    if not ended:
        got += stream(going_on, engine(body, "first" if not deaths else "last", step), [17, 400])
    got = got if got.endswith(DONE) else got + DONE
    text, finishes, told = read(got.replace(DONE, b"") + DONE)

    assert text == whole[0]
    assert finishes == whole[1]
    assert {json.loads(e[5:])["id"] for e in got.split(b"\n\n") if e and e != b"data: [DONE]"} == {"first"}
    if usage and not ended:
        assert told is not None
        assert told["completion_tokens"] == limit
        assert told["prompt_tokens"] == 5
        assert told["total_tokens"] == limit + 5
    going_on.close()
    assert allowance.take(64 << 20)


def test_memory_is_bounded_for_one_and_for_all() -> None:
    body = b'{"prompt":"q","stream":true}'
    long = b'data: {"id":"a","choices":[{"text":"' + b"x" * 30000 + b'"}]}\n\n'
    allowance = Allowance(400 << 10)
    first, second = continuation(COMPLETIONS, body, allowance), continuation(COMPLETIONS, body, allowance)
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
