"""Anthropic's messages (`/v1/messages`) as vLLM 0.32 answers them: named events, no `[DONE]`."""

from collections.abc import Mapping
from typing import Any

from halffull.sim.dialect.base import (
    Reply,
    Stream,
    around_text,
    content_text,
    event,
    joined,
    needed,
    rendered,
    stops,
    taken,
)
from halffull.sim.generation import Generation, Prompt, RefusedError, invalid

_STOP_REASONS = {"length": "max_tokens", "stop": "end_turn"}


class Messages:
    """The dialect; it keeps nothing."""

    def parse(self, body: Mapping[str, Any]) -> Generation:
        """Return what a request asks."""
        limit = needed(body, "max_tokens", int)
        if limit < 1:
            raise invalid(f"max_tokens must be at least 1, got {limit}.", "max_tokens")
        return Generation(
            model=taken(body, "model", str),
            prompts=[Prompt.of(prompt_text(body))],
            max_tokens=limit,
            min_tokens=min(limit, taken(body, "min_tokens", int, 0)),
            ignore_eos=taken(body, "ignore_eos", bool, default=False),
            stop=stops(taken(body, "stop_sequences", list, [])),
            stream=taken(body, "stream", bool, default=False),
        )

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the body of a plain answer."""
        return {
            "id": f"chatcmpl-{reply.id}",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": reply.choices[0].text}],
            "model": reply.model,
            **_stopped(reply),
            "usage": _usage(reply),
        }

    def stream(self, reply: Reply) -> Stream:
        """Return the writer of a streamed answer."""
        return MessagesStream(reply)

    def error(self, refused: RefusedError) -> dict[str, Any]:
        """Return the body of a refusal, in Anthropic's form."""
        return {"type": "error", "error": {"type": refused.kind, "message": refused.message}}


def prompt_text(body: Mapping[str, Any]) -> str:
    """Return system prompt and messages as one text."""
    system = content_text(body.get("system"))
    messages = needed(body, "messages", list)
    return rendered([{"role": "system", "content": system}, *messages] if system else messages)


def _stopped(reply: Reply) -> dict[str, Any]:
    choice = reply.choices[0]
    if choice.answer.stop_reason is not None and choice.finish_reason == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": choice.answer.stop_reason}
    finish = choice.finish_reason or ""
    return {"stop_reason": _STOP_REASONS.get(finish, finish), "stop_sequence": None}


def _usage(reply: Reply) -> dict[str, Any]:
    return {
        "input_tokens": reply.prompt_tokens,
        "output_tokens": reply.completion_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": reply.cached_tokens,
    }


class MessagesStream:
    """`message_start`, one text block with a delta per token, `message_stop`."""

    early = False

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "\0"}, "index": 0}
        self._around = around_text(delta, "content_block_delta")

    def opening(self) -> list[bytes]:
        """Return the start of the message and of its text block."""
        reply = self._reply
        message: dict[str, Any] = {
            "id": f"chatcmpl-{reply.id}",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": reply.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": reply.prompt_tokens, "output_tokens": 0},
        }
        block = {"type": "content_block_start", "content_block": {"type": "text", "text": ""}, "index": 0}
        return [
            event({"type": "message_start", "message": message}, "message_start"),
            event(block, "content_block_start"),
        ]

    def token(self, index: int, text: str, reason: str | None) -> list[bytes]:
        """Return a delta, if the token has text."""
        return [joined(self._around, text)] if text else []

    def closing(self) -> list[bytes]:
        """Return the end of the text block and of the message."""
        delta = {"type": "message_delta", "delta": _stopped(self._reply), "usage": _usage(self._reply)}
        return [
            event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
            event(delta, "message_delta"),
            event({"type": "message_stop"}, "message_stop"),
        ]
