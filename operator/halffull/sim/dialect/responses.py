"""OpenAI's responses (`/v1/responses`) as vLLM 0.32 answers them: named, numbered events, no `[DONE]`. Nothing is stored."""

from collections.abc import Mapping
from typing import Any

from halffull.sim.dialect.base import Reply, Stream, event, needed, rendered, taken
from halffull.sim.generation import Generation, Prompt, RefusedError, invalid

_STATUS = {"length": "incomplete", "stop": "completed"}


class Responses:
    """The dialect; it keeps nothing."""

    def parse(self, body: Mapping[str, Any]) -> Generation:
        """Return what a request asks."""
        given = needed(body, "input", (str, list))
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
        instructions = taken(body, "instructions", str)
        if instructions:
            messages = [{"role": "system", "content": instructions}, *messages]
        limit = taken(body, "max_output_tokens", int)
        if limit is not None and limit < 1:
            raise invalid(f"max_output_tokens must be at least 1, got {limit}.", "max_output_tokens")
        return Generation(
            model=taken(body, "model", str),
            prompts=[Prompt.of(rendered(messages))],
            max_tokens=limit,
            min_tokens=taken(body, "min_tokens", int, 0),
            ignore_eos=taken(body, "ignore_eos", bool, default=False),
            stream=taken(body, "stream", bool, default=False),
            extra={"instructions": instructions, "metadata": body.get("metadata"), "user": body.get("user")},
        )

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return the body of a plain answer."""
        return _response(reply, ended=True)

    def stream(self, reply: Reply) -> Stream:
        """Return the writer of a streamed answer."""
        return ResponsesStream(reply)

    def error(self, refused: RefusedError) -> dict[str, Any]:
        """Return the body of a refusal."""
        return refused.document


def _part(text: str, logprobs: Any = None) -> dict[str, Any]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}


def _item(reply: Reply, content: list[Any], status: str) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.id}",
        "content": content,
        "role": "assistant",
        "status": status,
        "type": "message",
        "phase": None,
    }


def _usage(reply: Reply) -> dict[str, Any]:
    cached = {"cached_tokens": reply.cached_tokens, "cache_write_tokens": 0}
    return {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": cached | {"input_tokens_per_turn": [], "cached_tokens_per_turn": []},
        "output_tokens": reply.completion_tokens,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }


def _response(reply: Reply, *, ended: bool) -> dict[str, Any]:
    choice, generation = reply.choices[0], reply.generation
    status = _STATUS.get(choice.finish_reason or "", "cancelled") if ended else "in_progress"
    cut_short = ended and choice.finish_reason == "length"
    return {
        "id": f"resp_{reply.id}",
        "created_at": reply.created,
        "incomplete_details": {"reason": "max_output_tokens"} if cut_short else None,
        "instructions": generation.extra["instructions"],
        "metadata": generation.extra["metadata"],
        "model": reply.model,
        "object": "response",
        "output": [_item(reply, [_part(choice.text)], "completed")] if ended else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "none",
        "tools": [],
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": generation.max_tokens,
        "max_tool_calls": None,
        "previous_response_id": None,
        "prompt": None,
        "reasoning": None,
        "service_tier": "auto",
        "status": status,
        "text": None,
        "top_logprobs": None,
        "truncation": "disabled",
        "usage": _usage(reply) if ended else None,
        "user": generation.extra["user"],
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


class ResponsesStream:
    """Events around one message with one text part; each has the next sequence number."""

    early = True

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._sequence = 0
        self._announced = False
        self._part = {"item_id": f"msg_{reply.id}", "output_index": 0, "content_index": 0}

    def opening(self) -> list[bytes]:
        """Return the two events that vLLM sends before it has a token."""
        response = _response(self._reply, ended=False)
        return [self._event(name, response=response) for name in ("response.created", "response.in_progress")]

    def token(self, index: int, text: str, reason: str | None) -> list[bytes]:
        """Return a delta, if the token has text; before the first, the announcement of the message."""
        events = [] if self._announced else self._announcement()
        if text:
            events.append(self._event("response.output_text.delta", delta=text, logprobs=[], **self._part))
        return events

    def closing(self) -> list[bytes]:
        """Return the ends of part, message and response."""
        reply = self._reply
        text = reply.choices[0].text
        item = _item(reply, [_part(text)], "completed")
        return [
            *([] if self._announced else self._announcement()),
            self._event("response.output_text.done", logprobs=[], text=text, **self._part),
            self._event("response.content_part.done", part=_part(text), **self._part),
            self._event("response.output_item.done", item=item, output_index=0),
            self._event("response.completed", response=_response(reply, ended=True)),
        ]

    def _announcement(self) -> list[bytes]:
        self._announced = True
        item = _item(self._reply, [], "in_progress")
        return [
            self._event("response.output_item.added", item=item, output_index=0),
            self._event("response.content_part.added", part=_part("", []), **self._part),
        ]

    def _event(self, name: str, **fields: Any) -> bytes:
        document = fields | {"sequence_number": self._sequence, "type": name}
        self._sequence += 1
        return event(dict(sorted(document.items())), name)
