"""What scheduling needs to know of a request's body, decoded in part. `passage` calls it once per request.

Only the fields named here become objects; a body of 64 kB costs tens of microseconds. Prompts are counted, never kept.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from halffull.core.errors import Failure, Reason
from halffull.router.unreadable import UNREADABLE


class _Part(msgspec.Struct):
    text: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    user: str | None = None
    previous_response_id: str | None = None
    messages: list[_Message] | None = None
    prompt: str | list[Any] | None = None
    input: str | list[Any] | None = None
    system: str | list[_Part] | None = None
    instructions: str | None = None
    text: str | None = None


class _Loose(msgspec.Struct):
    """For a body whose fields have other types than the APIs say: the engine judges it, we only look for the basics."""

    model: Any = None
    stream: Any = None


LONGEST_ANSWER = 1 << 24
"""tokens"""
_PRIORITY = re.compile(rb"-?[0-9]{1,3}\Z")
_BODY = msgspec.json.Decoder(_Body)
_LOOSE = msgspec.json.Decoder(_Loose)
_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True)
class Prompt:
    """What is known of a request before it runs."""

    text_bytes: int = 0
    """UTF-8 bytes of text; images do not count"""
    tokens: int = 0
    """exact tokens, where the prompt came as token ids"""
    estimate: int = 0
    """tokens of the whole prompt as the router takes them to be"""
    counted: int | None = None
    """tokens of the whole prompt as the engine counted them, once it has said so"""
    model: str | None = None
    stream: bool = False
    max_tokens: int | None = None
    user: str = ""
    continues: str | None = None
    """id of the stored response that it continues"""


def read(body: bytes) -> Prompt | Failure:
    """Read a JSON body. A body that is no JSON object is refused; a field of an unexpected type is the engine's to judge."""
    try:
        return _read(body)
    except msgspec.DecodeError as error:
        return Failure(Reason.INVALID_BODY, f"The body is not valid JSON: {error}.")
    except UnicodeDecodeError:
        return Failure(Reason.INVALID_BODY, "The body is not valid JSON: a text is not UTF-8.")
    except RecursionError:
        return Failure(Reason.INVALID_BODY, "The body is nested too deeply.")


def _read(body: bytes) -> Prompt | Failure:
    try:
        fields = _BODY.decode(body)
    except msgspec.ValidationError:
        return _read_loosely(body)
    prompt = Prompt(
        model=fields.model,
        stream=fields.stream is True,
        max_tokens=_limit(fields.max_completion_tokens or fields.max_tokens or fields.max_output_tokens),
        user=fields.user or "",
        continues=fields.previous_response_id,
    )
    if fields.messages:
        for message in fields.messages:
            _count(prompt, message.content)
    for text in (fields.prompt, fields.input, fields.system, fields.instructions, fields.text):
        if text:
            _count(prompt, text)
    return prompt


def texts(body: bytes) -> Iterator[str]:
    """The texts of a prompt in order, token ids as text too; nothing where the body is not as the APIs say."""
    try:
        fields = _BODY.decode(body)
    except UNREADABLE:
        return
    for content in (fields.instructions, fields.system, fields.prompt, fields.input, fields.text):
        yield from _texts(content)
    for message in fields.messages or ():
        yield from _texts(message.content)


def session(headers: Mapping[bytes, bytes], user: str) -> str:
    """Return what keeps requests together, as a short hash: of x-halffull-session, else of the field `user`; may be empty."""
    told = headers.get(b"x-halffull-session") or user.encode()
    return blake2b(told, digest_size=8).hexdigest() if told else ""


def with_model(body: bytes, model: str) -> bytes:
    """Return the JSON object with another `model`; every other value keeps its bytes."""
    try:
        fields = _RAW.decode(body)
    except UnicodeDecodeError:
        return body  # a name is not UTF-8: the engine refuses it, whatever the model
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


def priority(fields: dict[bytes, bytes]) -> int | Failure:
    """Return the class of a request, 0 where it names none."""
    told = fields.get(b"x-halffull-priority", b"0")
    if not _PRIORITY.match(told):
        return Failure(Reason.BAD_REQUEST, "x-halffull-priority must be an integer from -999 to 999.")
    return int(told)


def caller(headers: Mapping[bytes, bytes], user: str) -> str:
    """Return who asks, as a short hash: of x-halffull-caller, else of the API key, else of the field `user`; may be empty."""
    told = (
        headers.get(b"x-halffull-caller") or headers.get(b"authorization") or headers.get(b"x-api-key") or user.encode()
    )
    return blake2b(told, digest_size=8).hexdigest() if told else ""


def _limit(told: int | None) -> int | None:
    """Return a limit on generated tokens, if it is one that an answer can reach: any number may have been written."""
    return told if told is not None and 0 < told <= LONGEST_ANSWER else None


def _read_loosely(body: bytes) -> Prompt | Failure:
    try:
        fields = _LOOSE.decode(body)
    except msgspec.ValidationError:
        return Failure(Reason.INVALID_BODY, "The body must be a JSON object.")
    model = fields.model if isinstance(fields.model, str) else None
    return Prompt(text_bytes=len(body), model=model, stream=fields.stream is True)


def _texts(content: Any) -> Iterator[str]:
    """No recursion: however deep what was read is nested, it can be gone through once more."""
    left = [content]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, _Part):
            yield item.text or ""
        elif isinstance(item, int):
            yield str(item)
        elif isinstance(item, list):
            left += reversed(item)
        elif isinstance(item, dict):
            left.append(item.get("content") or item.get("text"))


def _count(prompt: Prompt, content: Any) -> None:
    """Add what a text, a list of texts, parts, messages or token ids holds."""
    if isinstance(content, str):
        prompt.text_bytes += len(content) if content.isascii() else len(content.encode(errors="replace"))
    elif isinstance(content, _Part):
        _count(prompt, content.text)
    elif isinstance(content, list):
        if content and isinstance(content[0], int):
            prompt.tokens += len(content)
        else:
            for item in content:
                _count(prompt, item)
    elif isinstance(content, dict):  # an input item of the Responses API
        _count(prompt, content.get("content") or content.get("text"))
