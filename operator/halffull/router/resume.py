"""Continuation: a stream that lost its replica goes on at another from the text already sent, as one unbroken stream.

`passage` keeps one per streamed request that may be continued. What went to the client is kept as raw events and reduced to text in
bulk. The client gets whole events only, so that the seam never falls into one. What follows the seam is a valid continuation,
with greedy decoding the very one that would have come.
"""

from itertools import takewhile
from typing import Any

import msgspec

from halffull.engines.base import Path, aborted

REDUCE_BYTES = 16 << 10
"""of raw events that are kept before they are reduced to text"""
MAX_BYTES = 256 << 10
"""of text of one request; a longer one is not continued"""
TOTAL_BYTES = 64 << 20
"""of all requests of a router together"""
_DONE = b"data: [DONE]\n\n"


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str = ""
    created: int = 0
    choices: list[_Choice] = []
    usage: dict[str, Any] | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class Allowance:
    """Memory that all continuations of a router share."""

    def __init__(self, total_bytes: int = TOTAL_BYTES) -> None:
        self._left = total_bytes

    def take(self, size: int) -> bool:
        """Whether so many more bytes may be kept."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """So many bytes are kept no longer."""
        self._left += size


class Continuation:
    """What of one stream has gone to its client, and how it goes on."""

    def __init__(self, fields: dict[str, msgspec.Raw], by: str, allowance: Allowance) -> None:
        self._fields = fields
        self._by = by
        self._allowance = allowance
        self._taken = 0
        self._partial = b""
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._text = ""
        self._possible = True
        self._finished = ""
        self._id = ""
        self._created = 0
        self._stops = _stops(fields)
        self._span = 0
        self._tokens_before = 0
        self.aborted = False
        """the engine gave the answer up; the client has not seen that"""
        self.tokens = 0
        """generated so far, taken to be one per event with text"""
        self.seams = 0
        """times that it went on elsewhere"""

    # --- while an engine streams

    def passed(self, data: bytes) -> bytes:
        """Take a piece of the stream; return the whole events that may go to the client now."""
        if self._partial or not data.endswith(b"\n\n"):
            data = self._partial + data
            end = data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
            data, self._partial = data[:end], data[end:]
        if b'"abort"' in data and self._possible:
            data = self._before_abort(data)
        if self.seams:
            return b"".join([self._keep(self._spliced(event)) for event in data.split(b"\n\n") if event])
        return self._keep(data)

    # --- when the replica is lost

    def request(self) -> bytes | None:
        """Return the body of the request that goes on; None where the text cannot be continued."""
        self._reduce()
        self._partial = b""
        left = self._left()
        if (
            not self._possible
            or self._finished
            or any(limit <= 0 for name, limit in left.items() if name != "min_tokens")
        ):
            return None
        fields = self._fields | {name: _raw(max(limit, 0)) for name, limit in left.items()}
        if self._text and self._by == "messages":
            said = _raw({"role": "assistant", "content": self._text})
            fields["messages"] = _raw([*_LIST.decode(self._fields["messages"]), said])
            fields |= {"continue_final_message": _raw(True), "add_generation_prompt": _raw(False)}  # noqa: FBT003
        elif self._text:
            fields["prompt"] = _raw(msgspec.json.decode(self._fields["prompt"]) + self._text)
        return msgspec.json.encode(fields)

    def ending(self) -> bytes | None:
        """Return what is missing of a stream whose last token had come, or None: it needs to go on."""
        self._reduce()
        if self._possible and not self._finished and any(limit <= 0 for limit in self._left().values()):
            self._finished = "length"
            return self._finish("length") + _DONE
        return _DONE if self._possible and self._finished else None

    def seam(self) -> None:
        """The stream goes on at another replica from here."""
        self.seams += 1
        self.aborted = False
        self._partial = b""
        self._span = len(self._text)
        self._tokens_before = self.tokens

    def close(self) -> None:
        """The stream is over: give its memory back."""
        self._allowance.give(self._taken)
        self._taken = 0
        self._possible = False
        self._raw.clear()

    # --- inside

    def _keep(self, data: bytes) -> bytes:
        if self._possible and data:
            self._raw.append(data)
            self._raw_bytes += len(data)
            if self._raw_bytes >= REDUCE_BYTES:
                self._reduce()
        return data

    def _left(self) -> dict[str, int]:
        """Return the limits on tokens that the request sets, less those generated."""
        limits = {}
        for name in ("max_tokens", "max_completion_tokens", "min_tokens"):
            limit = msgspec.json.decode(self._fields[name]) if name in self._fields else None
            if isinstance(limit, int):
                limits[name] = limit - self.tokens
        return limits

    def _reduce(self) -> None:
        """Turn kept events into text; give up where there is more in them than text, or too much."""
        raw, self._raw, self._raw_bytes = b"".join(self._raw), [], 0
        parts = []
        for event in raw.split(b"\n\n"):
            chunk = _chunk(event)
            if chunk is None:
                continue
            if not self._id:
                self._id, self._created = chunk.id, chunk.created
            for choice in chunk.choices:
                delta = choice.delta or {}
                if any(value for key, value in delta.items() if key not in {"role", "content"}):
                    self._possible = False
                if text := choice.text or delta.get("content"):
                    parts.append(text)
                    self.tokens += 1
                self._finished = choice.finish_reason or self._finished
        text = "".join(parts)
        if self._taken + len(text) > MAX_BYTES or not self._allowance.take(len(text)):
            self._possible = False
        else:
            self._taken += len(text)
        self._text = self._text + text if self._possible else ""

    def _before_abort(self, data: bytes) -> bytes:
        """Return the events before the one in which an engine that shuts down gives the answer up."""
        events = data.split(b"\n\n")
        kept = list(takewhile(lambda event: not aborted(event.removeprefix(b"data:")), events))
        self.aborted = len(kept) < len(events)
        return b"".join(event + b"\n\n" for event in kept if event)

    def _spliced(self, event: bytes) -> bytes:
        """Return an event of a later engine as one of the first stream; empty: the client has it already, or is done."""
        if self._finished == "stop" or event.startswith(b":"):
            return b""
        chunk = _chunk(event)
        if chunk is None:
            return event + b"\n\n"
        fields = _FIELDS.decode(event.removeprefix(b"data:"))
        if chunk.choices and not any(_speaks(choice) for choice in chunk.choices):
            return b""  # the opening of the later engine's stream
        if self._stopped(chunk):
            return self._finish("stop") + _DONE
        fields |= {"id": _raw(self._id), "created": _raw(self._created)}
        if chunk.usage:
            fields["usage"] = _raw(self._whole(chunk.usage))
        return b"data: " + msgspec.json.encode(fields) + b"\n\n"

    def _stopped(self, chunk: _Chunk) -> bool:
        """Whether a stop sequence ends in this chunk that began before the seam, which no engine can see."""
        longest = max(map(len, self._stops), default=0)
        if not longest or not chunk.choices:
            return False
        self._reduce()
        new = chunk.choices[0].text or (chunk.choices[0].delta or {}).get("content") or ""
        before = self._text[max(self._span - longest + 1, 0) :]
        if len(self._text) - self._span >= longest or not any(stop in before + new for stop in self._stops):
            return False
        self._finished = "stop"
        return True

    def _whole(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return usage of the whole answer: a later engine counts the text before the seam as its prompt."""
        before, merged = self._tokens_before, dict(usage)
        merged["prompt_tokens"] = max(int(usage.get("prompt_tokens") or 0) - before, 0)
        merged["completion_tokens"] = int(usage.get("completion_tokens") or 0) + before
        merged["total_tokens"] = merged["prompt_tokens"] + merged["completion_tokens"]
        return merged

    def _finish(self, reason: str) -> bytes:
        """Return the event that says why the answer ends."""
        chat = self._by == "messages"
        empty: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        choice = {"index": 0, **empty, "logprobs": None, "finish_reason": reason}
        kind = "chat.completion.chunk" if chat else "text_completion"
        chunk = {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._fields.get("model"),
            "choices": [choice],
        }
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def continuation(kind: Path, body: bytes, allowance: Allowance) -> Continuation | None:
    """Return a continuation where every field of a streamed request can be taken over a seam, else None."""
    continuing = kind.continuing
    if continuing is None:
        return None
    fields = _FIELDS.decode(body)
    if not fields.keys() <= continuing.fields or bytes(fields.get("n", b"1")) not in {b"1", b"null"}:
        return None
    if continuing.by == "prompt" and not bytes(fields.get("prompt", b"")).startswith(b'"'):
        return None
    if continuing.by == "messages" and not bytes(fields.get("messages", b"")).startswith(b"["):
        return None
    return Continuation(fields, continuing.by, allowance)


def _chunk(event: bytes) -> _Chunk | None:
    """Return the chunk in an event; None where it is none."""
    if not event.startswith(b"data:") or event.endswith(b"[DONE]"):
        return None
    try:
        return _CHUNK.decode(event[5:])
    except msgspec.DecodeError:
        return None


def _speaks(choice: _Choice) -> bool:
    return bool(choice.text or choice.finish_reason or any(v for k, v in (choice.delta or {}).items() if k != "role"))


def _stops(fields: dict[str, msgspec.Raw]) -> list[str]:
    stop = msgspec.json.decode(fields["stop"]) if "stop" in fields else None
    return [stop] if isinstance(stop, str) else [text for text in stop or [] if isinstance(text, str)]


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
