"""What a dialect is, and the small tools that all four share.

Called by the server: `parse` once per request, then either `whole` once or a `Stream` as tokens come. Pure: text in, bytes out.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from halffull.sim.generation import Generation, Prompt, RefusedError, invalid
from halffull.sim.language import Answer

FINGERPRINT = "vllm-0.32.0-simulated"
MOST_ANSWERS = 16_384
ENDED = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Choice:
    """One answer under way."""

    prompt: Prompt
    answer: Answer
    max_tokens: int
    """tokens that it may have at most"""
    block_hashes: Sequence[Hashable] = ()
    """of its prompt, for the prefix cache"""
    generated: int = 0
    """tokens of it that the engine has made"""
    cached_tokens: int = 0
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        """The text made so far."""
        return "".join(self.answer.pieces[: self.generated])


@dataclass(slots=True)
class Reply:
    """Everything an answer says of itself."""

    id: str
    """the client's x-request-id, or 16 random hexadecimal digits; each dialect puts its prefix before it"""
    created: int
    """seconds since 1970"""
    model: str
    generation: Generation
    choices: list[Choice] = field(default_factory=list)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts; a prompt with several answers counts once."""
        return sum(prompt.tokens for prompt in self.generation.prompts)

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(choice.generated for choice in self.choices)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens found in the prefix cache, of the first answer to each prompt."""
        return sum(choice.cached_tokens for choice in self.choices[:: self.generation.n])


class Stream(Protocol):
    """Writes the events of one streamed answer."""

    early: bool
    """whether `opening` is sent at once, or only with the first token"""

    def opening(self) -> list[bytes]:
        """Return the events before the first token."""

    def token(self, index: int, text: str, reason: str | None) -> list[bytes]:
        """Return the events of one more token of an answer (no text: its end token), the last if there is a finish reason."""

    def closing(self) -> list[bytes]:
        """Return the events after all answers have ended."""


class Dialect(Protocol):
    """One API."""

    def parse(self, body: Mapping[str, Any]) -> Generation:
        """Return what a request asks. RefusedError if its fields are wrong."""

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the body of a plain answer."""

    def stream(self, reply: Reply) -> Stream:
        """Return the writer of a streamed answer."""

    def error(self, refused: RefusedError) -> dict[str, Any]:
        """Return the body of a refusal."""


_CLOSED = b"}\n\n"
_COUNTS = (
    b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"completion_tokens_details":null}' + _CLOSED
)


def compact(document: Any) -> str:
    """Return JSON without blanks, as vLLM writes it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def event(document: Any, name: str | None = None) -> bytes:
    """Return one server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {compact(document)}\n\n".encode()


def around_text(document: Any, name: str | None = None) -> tuple[bytes, bytes]:
    """Return the bytes before and after the one string that is a NUL in an event: a token then costs one concatenation."""
    before, after = event(document, name).split(b'"\\u0000"')
    return before, after


def joined(around: tuple[bytes, bytes], text: str) -> bytes:
    """Return the event of one token; its text is a word or a part of one, so nothing in it needs an escape."""
    return b'%b"%b"%b' % (around[0], text.encode(), around[1])


def joined_with_usage(around: tuple[bytes, bytes], text: str, reply: Reply) -> bytes:
    """Return the same with usage so far."""
    prompt, completion = reply.prompt_tokens, reply.completion_tokens
    return b'%b"%b"%b' % (around[0], text.encode(), around[1][: -len(_CLOSED)]) + _COUNTS % (
        prompt, prompt + completion, completion,
    )  # fmt: skip


def usage(reply: Reply, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return OpenAI's usage so far, with `details` after its three counts."""
    prompt, completion = reply.prompt_tokens, reply.completion_tokens
    counts = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
    return counts | dict(details or {})


def taken(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """Return a field of the body, `default` if absent or null. RefusedError if it is of another type."""
    value = body.get(name)
    if value is None:
        return default
    accepted = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        raise _malformed("type_error", name, f"Input should be a valid {accepted[0].__name__}")
    return value


def needed(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """Return a field of the body. RefusedError if it is absent or of another type."""
    value = taken(body, name, kind)
    if value is None:
        raise _malformed("missing", name, "Field required")
    return value


def _malformed(kind: str, name: str, message: str) -> RefusedError:
    text = f"1 validation error:\n  {{'type': '{kind}', 'loc': ('body', '{name}'), 'msg': '{message}'}}"
    return RefusedError(400, text, "Bad Request", name)


def sampling(body: Mapping[str, Any], max_tokens: int | None) -> dict[str, Any]:
    """Return the Generation fields that OpenAI's two older APIs share. RefusedError where numbers are out of range."""
    least = taken(body, "min_tokens", int, 0)
    n = taken(body, "n", int, 1)
    if max_tokens is not None and max_tokens < 1:
        raise invalid(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens")
    if least < 0 or (max_tokens is not None and least > max_tokens):
        raise invalid(f"min_tokens must be between 0 and max_tokens={max_tokens}, got {least}.", "min_tokens")
    if not 1 <= n <= MOST_ANSWERS:
        raise invalid(f"n must be between 1 and {MOST_ANSWERS}, got {n}.", "n")
    options = taken(body, "stream_options", dict, {})
    stream = taken(body, "stream", bool, default=False)
    if options and not stream:
        raise invalid("Stream options can only be defined when `stream=True`.", "stream_options")
    return {
        "model": taken(body, "model", str),
        "max_tokens": max_tokens,
        "min_tokens": least,
        "ignore_eos": taken(body, "ignore_eos", bool, default=False),
        "stop": stops(taken(body, "stop", (str, list), [])),
        "n": n,
        "stream": stream,
        "include_usage": bool(options.get("include_usage")),
        "continuous_usage": bool(options.get("include_usage") and options.get("continuous_usage_stats")),
    }


def stops(value: str | Sequence[Any]) -> tuple[str, ...]:
    """Return stop strings as a tuple. RefusedError if one is empty or no string."""
    listed = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(text, str) and text for text in listed):
        raise invalid("stop cannot contain an empty string.", "stop")
    return listed


def content_text(content: Any) -> str:
    """Return the text of a message's content; parts that are not text (images, tool calls) stand as one word each."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _malformed("type_error", "content", "Input should be a string or a list of parts")
    parts = [part if isinstance(part, dict) else {"text": str(part)} for part in content]
    return "\n".join(part["text"] if isinstance(part.get("text"), str) else f"<{part.get('type')}>" for part in parts)


def rendered(messages: Sequence[Any], *, continue_last: bool = False, opened: bool = True) -> str:
    """Return messages as one text by the chat template of the simulated model.

    Each is `<role>`, a line break, its content, a line break; then `<assistant>` and a line break if `opened`. To continue
    the last message the text ends with its content: what a model would have before it had it just said so.
    """
    if not all(isinstance(message, dict) for message in messages):
        raise _malformed("type_error", "messages", "Input should be a list of messages")
    text = "".join(f"<{m.get('role', 'user')}>\n{content_text(m.get('content'))}\n" for m in messages)
    if continue_last:
        return text[:-1]
    return text + "<assistant>\n" if opened else text
