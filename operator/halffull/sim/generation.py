"""What one request asks of a simulated engine, whatever API it came by, and how it is refused.

Made by the dialects from request bodies, read by the server. Refusals are worded as vLLM 0.32 words them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from halffull.sim import language

BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."


class RefusedError(Exception):
    """The request is answered with an error in vLLM's form."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param

    @property
    def document(self) -> dict[str, Any]:
        """The answer's body in OpenAI's form; `code` is what clients should decide by."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


def busy() -> RefusedError:
    """Return the refusal of an engine whose queue is full."""
    return RefusedError(503, BUSY, "Service Unavailable")


def invalid(message: str, param: str | None = None) -> RefusedError:
    """Return the refusal of a request whose fields are wrong."""
    return RefusedError(400, message, "BadRequestError", param)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to go on from, and its length in tokens."""

    text: str
    tokens: int

    @classmethod
    def of(cls, text: str) -> "Prompt":
        """Return the prompt of a text; like vLLM's, it has at least one token."""
        return cls(text, max(1, language.count(text)))


@dataclass(frozen=True, slots=True)
class Generation:
    """A request for text."""

    model: str | None
    prompts: Sequence[Prompt]
    max_tokens: int | None = None
    """limit on the tokens of each answer; None: what fits in the context"""
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: Sequence[str] = ()
    n: int = 1
    """answers per prompt"""
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    """fields that the answer repeats"""


def output_limit(generation: Generation, prompt: Prompt, max_model_len: int) -> int:
    """Return how many tokens may follow a prompt. RefusedError (400) if the context is too small for what is asked."""
    asked = generation.max_tokens
    if asked is not None and asked > max_model_len:
        raise invalid(
            f"max_tokens={asked} cannot be greater than max_model_len={max_model_len}. Please request fewer output tokens. "
            f"(parameter=max_tokens, value={asked})",
            "max_tokens",
        )
    context = f"This model's maximum context length is {max_model_len} tokens. However, "
    if prompt.tokens >= max_model_len:
        raise invalid(
            f"{context}your prompt contains {prompt.tokens} input tokens, which exceeds this limit even without any output "
            "tokens. Please reduce the length of the input prompt. "
            f"(parameter=input_tokens, value={prompt.tokens})",
            "input_tokens",
        )
    if asked is None:
        return max_model_len - prompt.tokens
    if prompt.tokens + asked > max_model_len:
        raise invalid(
            f"{context}you requested {asked} output tokens and your prompt contains at least {prompt.tokens} input tokens, "
            f"for a total of at least {prompt.tokens + asked} tokens. Please reduce the length of the input prompt or the "
            f"number of requested output tokens. (parameter=input_tokens, value={prompt.tokens})",
            "input_tokens",
        )
    return asked
