"""What is read of an event's JSON: `transcript` and `resume` need its text and tokens.

Its types are read by msgspec while the program runs, so this module stays Python where its neighbours are compiled.
"""

from typing import Any

import msgspec

from halffull.router.answers.dialect import Count
from halffull.router.unreadable import UNREADABLE


class Choice(msgspec.Struct):
    """What an event says of one answer: of chat in `delta`, of completions in `text`."""

    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def said(self) -> str:
        """Its text."""
        content = (self.delta or {}).get("content")
        return self.text or (content if isinstance(content, str) else "")

    @property
    def speaks(self) -> bool:
        """Whether it has more than a role."""
        return bool(self.text or self.finish_reason or any(v for k, v in (self.delta or {}).items() if k != "role"))


class Usage(msgspec.Struct):
    """Tokens so far."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0


class Chunk(msgspec.Struct):
    """One event."""

    id: str = ""
    created: int = 0
    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(Chunk)


def chunk_in(event: bytes) -> Chunk | None:
    """Return the chunk in an event; None where it is none, or has a form that is not known."""
    if not event.startswith(b"data:") or not tells(event):
        return None
    try:
        return _CHUNK.decode(event[5:])
    except UNREADABLE:
        return None


def tells(event: bytes) -> bool:
    """Whether an event has data, in whatever line, that is to be a chunk, so that it may hold text."""
    return event.find(b"data:") >= 0 and not event.endswith(b"[DONE]")
