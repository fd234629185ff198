"""What the APIs say on the wire: errors in each form, what an event of a stream means, usage.

Pure; called by `passage` and `answer`, and by `proxy` for answers of its own.
"""

import re
from enum import Enum
from typing import Annotated, Any

import msgspec

from halffull.core.errors import Failure
from halffull.engines.base import STREAM_ENDS, Dialect, aborted, busy, dead
from halffull.router.unreadable import UNREADABLE

_TYPES = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "request_too_large",
    417: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""error types that OpenAI's and Anthropic's documentation name"""


class Event(Enum):
    """What an event of a stream that has not started means."""

    OPENING = "opening"
    """carries no generated text: held back"""
    STARTED = "started"
    """generated text, reasoning, a tool call, or the end of an empty answer"""
    BUSY = "busy"
    """the engine took no request"""
    ABORTED = "aborted"
    """the engine gave the request up before its first token"""
    DEAD = "dead"
    """the engine has died"""


Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
"""of tokens, as an answer may tell it: what no prompt and no answer has is not believed, or estimates would learn from it"""


class _Usage(msgspec.Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None
    id: str | None = None


class _Told(msgspec.Struct):
    """Where the APIs put usage in an event: OpenAI and Anthropic at the top, Responses in the response."""

    usage: _Usage | None = None
    response: _Answer | None = None


_TOLD = msgspec.json.Decoder(_Told)
_CHUNK = msgspec.json.Decoder(_Chunk)
_ANSWER = msgspec.json.Decoder(_Answer)
ENDS = {
    api: tuple((mark if api is Dialect.OPENAI else b"event: " + mark) + end for mark in marks for end in (b"\n", b"\r"))
    for api, marks in STREAM_ENDS.items()
}
"""what closes a stream, by API, with the end of its line, which no text in JSON has; nothing: any end is right"""
LONGEST_END = max(len(mark) for marks in ENDS.values() for mark in marks)
_RESPONSE_ID = re.compile(rb'"id":\s*"(resp_[!-~]{1,128}?)"')
_QUIET = {
    Dialect.ANTHROPIC: (b"message_start", b"content_block_start", b"ping"),
    Dialect.RESPONSES: (
        b"response.created",
        b"response.in_progress",
        b"response.queued",
        b"response.output_item.added",
        b"response.content_part.added",
        b"response.reasoning_part.added",
    ),
}
"""named events that carry no generated text"""


def error_body(dialect: Dialect, failure: Failure) -> bytes:
    """Return a failure as the JSON body that the API's clients expect."""
    status = failure.reason.status
    if dialect is Dialect.ANTHROPIC:
        told = {"type": _TYPES[status], "message": failure.message}
        return msgspec.json.encode({"type": "error", "error": told})
    error = {"message": failure.message, "type": _TYPES[status], "param": failure.param, "code": failure.reason.header}
    return msgspec.json.encode({"error": error})


def error_events(dialect: Dialect, failure: Failure) -> bytes:
    """Return the events that end a started stream with a failure."""
    body = error_body(dialect, failure)
    if dialect is Dialect.ANTHROPIC:
        return b"event: error\ndata: " + body + b"\n\n"
    if dialect is Dialect.RESPONSES:
        event = {"type": "error", "code": failure.reason.header, "message": failure.message, "param": failure.param}
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"
    return b"data: " + body + b"\n\ndata: [DONE]\n\n"


def ends(dialect: Dialect, piece: bytes) -> bool:
    """Whether a piece of a stream holds what closes it in this API; where nothing does, any end is right."""
    return not ENDS[dialect] or any(piece.find(mark) >= 0 for mark in ENDS[dialect])


def meaning(dialect: Dialect, event: bytes) -> Event:
    """Return what one event (its lines, without the blank one) of a stream that has not started means."""
    name, data = _fields(event)
    if not data:
        return Event.OPENING  # a comment that keeps the connection alive
    if busy(data):
        return Event.BUSY
    if dead(data):
        return Event.DEAD
    if data == b"[DONE]" or name == b"message_stop":
        return Event.ABORTED  # without a text and a reason to finish, as vLLM ends what it aborts while it waits
    if name:
        return Event.OPENING if name in _QUIET.get(dialect, ()) else Event.STARTED
    if dialect is not Dialect.OPENAI:
        return Event.STARTED
    try:
        chunk = _CHUNK.decode(data)
    except UNREADABLE:
        return Event.STARTED  # not a form we know: let the client judge it
    if chunk.error is not None or chunk.choices is None:
        return Event.STARTED
    if any(_generated(choice) for choice in chunk.choices):
        return Event.ABORTED if aborted(data) else Event.STARTED
    return Event.OPENING


def usage(body: bytes) -> tuple[int | None, int | None, str | None]:
    """Return prompt tokens, generated tokens and the id of a plain answer; None where it does not say."""
    try:
        answer = _ANSWER.decode(body)
    except UNREADABLE:
        return None, None, None
    return *_tokens(answer.usage), answer.id


def response_id(opening: bytes) -> str:
    """Return the id of a stored response from the events that open its stream, or an empty text."""
    found = _RESPONSE_ID.search(opening)
    return found[1].decode() if found else ""


def stream_usage(piece: bytes) -> tuple[int | None, int | None]:
    """Return prompt and generated tokens of the last usage in whole events of a stream; None where there is none."""
    for line in reversed(piece.splitlines()):
        if line.startswith(b"data:") and b'"usage"' in line:
            try:
                told = _TOLD.decode(line[5:])
            except UNREADABLE:
                continue
            found = told.usage or (told.response and told.response.usage)
            if found:
                return _tokens(found)
    return None, None


def models_body(names: list[str]) -> bytes:
    """Return the answer of `GET /v1/models`."""
    return msgspec.json.encode({"object": "list", "data": [_model(name) for name in names]})


def model_body(name: str) -> bytes:
    """Return the answer of `GET /v1/models/{name}`."""
    return msgspec.json.encode(_model(name))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "halffull"}


def _generated(choice: _Choice) -> bool:
    delta = choice.delta or {}
    return bool(choice.text or choice.finish_reason or any(value for key, value in delta.items() if key != "role"))


def _fields(event: bytes) -> tuple[bytes, bytes]:
    name, data = b"", []
    for line in event.splitlines():
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif line.startswith(b"event:"):
            name = line[6:].strip()
    return name, b"\n".join(data)


def _tokens(found: _Usage | None) -> tuple[int | None, int | None]:
    if found is None:
        return None, None
    prompt = found.prompt_tokens if found.prompt_tokens is not None else found.input_tokens
    return prompt, found.completion_tokens if found.completion_tokens is not None else found.output_tokens
