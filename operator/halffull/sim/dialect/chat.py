"""OpenAI's chat completions (`/v1/chat/completions`) as vLLM 0.32 answers them."""

from collections.abc import Mapping
from typing import Any

from halffull.sim.dialect.base import (
    ENDED,
    FINGERPRINT,
    Reply,
    Stream,
    around_text,
    compact,
    event,
    joined,
    joined_with_usage,
    needed,
    rendered,
    sampling,
    taken,
    usage,
)
from halffull.sim.generation import Generation, Prompt, RefusedError, invalid


class Chat:
    """The dialect; it keeps nothing."""

    def parse(self, body: Mapping[str, Any]) -> Generation:
        """Return what a request asks; tools count as text before the messages."""
        messages = needed(body, "messages", list)
        last = taken(body, "continue_final_message", bool, default=False)
        opened = taken(body, "add_generation_prompt", bool, default=True)
        if last and opened:
            raise invalid("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
        if not messages:
            raise invalid("messages must not be empty.", "messages")
        tools = taken(body, "tools", list, [])
        text = (compact(tools) + "\n" if tools else "") + rendered(messages, continue_last=last, opened=opened)
        limit = taken(body, "max_completion_tokens", int, taken(body, "max_tokens", int))
        return Generation(prompts=[Prompt.of(text)], **sampling(body, limit))

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the body of a plain answer."""
        return {
            "id": f"chatcmpl-{reply.id}",
            "object": "chat.completion",
            "created": reply.created,
            "model": reply.model,
            "choices": [
                {
                    "index": index,
                    "message": {
                        "role": "assistant",
                        "content": choice.text,
                        "refusal": None,
                        "annotations": None,
                        "audio": None,
                        "function_call": None,
                        "reasoning": None,
                    },
                    "logprobs": None,
                    "finish_reason": choice.finish_reason,
                    "stop_reason": choice.answer.stop_reason,
                    "token_ids": None,
                    "routed_experts": None,
                }
                for index, choice in enumerate(reply.choices)
            ],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": usage(reply, {"prompt_tokens_details": _cached(reply), "completion_tokens_details": None}),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def stream(self, reply: Reply) -> Stream:
        """Return the writer of a streamed answer."""
        return ChatStream(reply)

    def error(self, refused: RefusedError) -> dict[str, Any]:
        """Return the body of a refusal."""
        return refused.document


def _cached(reply: Reply) -> dict[str, Any]:
    return {"cached_tokens": reply.cached_tokens, "created_cache_tokens": 0, "multimodal_tokens": None}


class ChatStream:
    """Role events, then one event per token; the last of each answer carries its finish reason."""

    early = False

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._plain = not reply.generation.continuous_usage
        self._around = [
            around_text(self._chunk([self._choice(index, "\0", {"token_ids": None})]))
            for index in range(len(reply.choices))
        ]

    def opening(self) -> list[bytes]:
        """Return the role event of each answer."""
        prompt = {"prompt_token_ids": None, "prompt_text": None}
        role = {"role": "assistant", "content": ""}
        choices = [
            {"index": index, "delta": role, "logprobs": None, "finish_reason": None}
            for index in range(len(self._reply.choices))
        ]
        return [event(self._chunk([choice], **self._usage()) | prompt) for choice in choices]

    def token(self, index: int, text: str, reason: str | None) -> list[bytes]:
        """Return the token's event."""
        if reason is None and self._plain:
            return [joined(self._around[index], text)]
        if reason is None:
            return [joined_with_usage(self._around[index], text, self._reply)]
        stop_reason = self._reply.choices[index].answer.stop_reason
        ended = {"finish_reason": reason, "stop_reason": stop_reason, "token_ids": None}
        closed = {} if self._reply.generation.include_usage else {"system_fingerprint": FINGERPRINT}
        return [event(self._chunk([self._choice(index, text, ended)], **self._usage()) | closed)]

    def closing(self) -> list[bytes]:
        """Return the usage, where asked for, and the end of the stream."""
        reply = self._reply
        if not reply.generation.include_usage:
            return [ENDED]
        details = {"prompt_tokens_details": {"cached_tokens": reply.cached_tokens, "created_cache_tokens": 0}}
        final = self._chunk([], usage=usage(reply, details), system_fingerprint=FINGERPRINT)
        return [event(final), ENDED]

    def _choice(self, index: int, text: str, end: Mapping[str, Any]) -> dict[str, Any]:
        return {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": None} | dict(end)

    def _usage(self) -> dict[str, Any]:
        return {} if self._plain else {"usage": usage(self._reply, {"completion_tokens_details": None})}

    def _chunk(self, choices: list[Any], **more: Any) -> dict[str, Any]:
        reply = self._reply
        return {
            "id": f"chatcmpl-{reply.id}",
            "object": "chat.completion.chunk",
            "created": reply.created,
            "model": reply.model,
            "choices": choices,
        } | more
