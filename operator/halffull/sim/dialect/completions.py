"""OpenAI's completions (`/v1/completions`) as vLLM 0.32 answers them; several prompts and answers in one request."""

from collections.abc import Mapping
from typing import Any

from halffull.sim.dialect.base import (
    ENDED,
    FINGERPRINT,
    Reply,
    Stream,
    around_text,
    event,
    joined,
    joined_with_usage,
    needed,
    sampling,
    taken,
    usage,
)
from halffull.sim.generation import Generation, Prompt, RefusedError, invalid

DEFAULT_MAX_TOKENS = 16


class Completions:
    """The dialect; it keeps nothing."""

    def parse(self, body: Mapping[str, Any]) -> Generation:
        """Return what a request asks; a prompt is a text, token ids, or a list of either."""
        limit = taken(body, "max_tokens", int, DEFAULT_MAX_TOKENS)
        return Generation(prompts=_prompts(needed(body, "prompt", (str, list))), **sampling(body, limit))

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the body of a plain answer."""
        return {
            "id": f"cmpl-{reply.id}",
            "object": "text_completion",
            "created": reply.created,
            "model": reply.model,
            "choices": [
                {
                    "index": index,
                    "text": choice.text,
                    "logprobs": None,
                    "finish_reason": choice.finish_reason,
                    "stop_reason": choice.answer.stop_reason,
                    "token_ids": None,
                    "prompt_logprobs": None,
                    "prompt_token_ids": None,
                }
                for index, choice in enumerate(reply.choices)
            ],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": usage(reply, {"prompt_tokens_details": {"cached_tokens": reply.cached_tokens}}),
            "kv_transfer_params": None,
        }

    def stream(self, reply: Reply) -> Stream:
        """Return the writer of a streamed answer."""
        return CompletionsStream(reply)

    def error(self, refused: RefusedError) -> dict[str, Any]:
        """Return the body of a refusal."""
        return refused.document


def _prompts(given: str | list[Any]) -> list[Prompt]:
    """Return the prompts of a request; token ids stand for themselves: `7` is the one-token word `<7>`."""
    if isinstance(given, str):
        return [Prompt.of(given)]
    if not given:
        raise invalid("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if all(isinstance(token, int) for token in given):
        return [Prompt("".join(f" <{token}>" for token in given), len(given))]
    return [prompt for item in given for prompt in _prompts(item if isinstance(item, list) else str(item))]


class CompletionsStream:
    """One event per token; the last of each answer carries its finish reason."""

    early = False

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._plain = not reply.generation.continuous_usage
        self._around = [around_text(self._chunk([_choice(index, "\0")])) for index in range(len(reply.choices))]

    def opening(self) -> list[bytes]:
        """Return nothing: the first event is the first token."""
        return []

    def token(self, index: int, text: str, reason: str | None) -> list[bytes]:
        """Return the token's event."""
        if reason is None and self._plain:
            return [joined(self._around[index], text)]
        if reason is None:
            return [joined_with_usage(self._around[index], text, self._reply)]
        ended = {"finish_reason": reason, "stop_reason": self._reply.choices[index].answer.stop_reason}
        closed = {} if self._reply.generation.include_usage else {"system_fingerprint": FINGERPRINT}
        return [event(self._chunk([_choice(index, text) | ended], **self._usage()) | closed)]

    def closing(self) -> list[bytes]:
        """Return the usage, where asked for, and the end of the stream."""
        reply = self._reply
        if not reply.generation.include_usage:
            return [ENDED]
        counts = usage(reply, {"prompt_tokens_details": {"cached_tokens": reply.cached_tokens}})
        return [event(self._chunk([], usage=counts, system_fingerprint=FINGERPRINT)), ENDED]

    def _usage(self) -> dict[str, Any]:
        return {} if self._plain else {"usage": usage(self._reply, {"completion_tokens_details": None})}

    def _chunk(self, choices: list[Any], **more: Any) -> dict[str, Any]:
        reply = self._reply
        return {
            "id": f"cmpl-{reply.id}",
            "object": "text_completion",
            "created": reply.created,
            "model": reply.model,
            "choices": choices,
        } | more


def _choice(index: int, text: str) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": None,
        "stop_reason": None,
        "prompt_token_ids": None,
        "token_ids": None,
    }
