"""Reads one answer of an OpenAI endpoint as far as its figures need: first token, tokens, whether it is complete.

Called by `client`; pure. Completions and chat completions, streamed (server-sent events) or plain.
"""

import json
from collections.abc import Mapping
from typing import Any

FINISHED = ("stop", "length", "tool_calls", "function_call", "content_filter")
"""finish reasons of a whole answer; vLLM's `abort` is not one"""


class Answer:
    """What is known of one answer so far."""

    __slots__ = ("_rest", "_usage_tokens", "done", "error", "finish_reason", "text_events")

    def __init__(self) -> None:
        self.text_events = 0
        """events that carried generated text"""
        self.finish_reason: str | None = None
        self.done = False
        """the stream ended with [DONE]"""
        self.error: str | None = None
        """the kind of an error event in the stream"""
        self._usage_tokens: int | None = None
        self._rest = b""

    @property
    def tokens(self) -> int:
        """Generated tokens: what `usage` says, else the events with text."""
        return self.text_events if self._usage_tokens is None else self._usage_tokens

    def feed(self, data: bytes) -> bool:
        """Read the next bytes of a stream; True if generated text came with them."""
        before = self.text_events
        data = self._rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        for event in events:
            self._event(event)
        return self.text_events > before

    def plain(self, body: bytes) -> None:
        """Read the whole body of an answer that is not streamed."""
        try:
            self._chunk(json.loads(body))
        except ValueError:
            self.error = "answer is not JSON"
        self.done = True

    def incomplete(self) -> str | None:
        """Why the answer is not whole; None if it is."""
        if self.error:
            return self.error
        if self.finish_reason is None:
            return "ended without finish_reason"
        if self.finish_reason not in FINISHED:
            return f"finish_reason {self.finish_reason}"
        return None if self.done else "ended without [DONE]"

    def _event(self, event: bytes) -> None:
        for line in event.split(b"\n"):
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                self.done = True
                continue
            try:
                self._chunk(json.loads(data))
            except ValueError:
                self.error = "event is not JSON"

    def _chunk(self, chunk: Any) -> None:
        if not isinstance(chunk, Mapping):
            self.error = "event is not an object"
            return
        if error := chunk.get("error"):
            code = error.get("code") if isinstance(error, Mapping) else None
            self.error = f"error event {code}" if code else "error event"
        for choice in chunk.get("choices") or ():
            said = choice.get("delta") or choice.get("message") or choice
            if said.get("content") or said.get("text") or said.get("reasoning_content") or said.get("tool_calls"):
                self.text_events += 1
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if usage := chunk.get("usage"):
            self._usage_tokens = usage.get("completion_tokens")


def error_type(body: bytes) -> str:
    """The type of an error in OpenAI's form; empty where the body has another one."""
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    error = document.get("error") if isinstance(document, Mapping) else None
    found = error.get("type") if isinstance(error, Mapping) else None
    return found if isinstance(found, str) else ""
