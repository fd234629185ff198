"""Continuation: a stream that lost its replica goes on at another from the text already sent, as one unbroken stream.

`passage` keeps one per streamed request that may be continued. What went to the client is kept as raw events and reduced to text in
bulk. The client gets whole events only, so that the seam never falls into one. What follows the seam is a valid continuation,
with greedy decoding the very one that would have come.

Bytes are searched with `find`: `in` asks them first whether they are a number, and the exception costs more than the search.
"""

from typing import Any

import msgspec

from halffull.core.faults import Fault
from halffull.engines.base import Continuing, Path, aborted, dead
from halffull.router import usage
from halffull.router.usage import Wish

RAW_BYTES = 32 << 20
"""of raw events that are kept, of all streams together; each has an equal share before its events are reduced to text"""
RAW_LEAST, RAW_MOST = 16 << 10, 64 << 10
"""bounds of a share: at the upper one most answers end before any event of theirs had to be read"""
MAX_BYTES = 256 << 10
"""of text of one request; a longer one is not continued"""
TOTAL_BYTES = 64 << 20
"""of all requests of a router together"""
_DONE = b"data: [DONE]\n\n"


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    id: str = ""
    created: int = 0
    choices: list[_Choice] = []
    usage: _Usage | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class Allowance:
    """Memory that all continuations of a router share."""

    def __init__(self, total_bytes: int = TOTAL_BYTES) -> None:
        self._left = total_bytes
        self._streams = 0
        self.raw_bytes = RAW_MOST
        """of raw events that one stream may keep"""

    def joined(self, streams: int) -> None:
        """So many streams more, or fewer, share it."""
        self._streams += streams
        self.raw_bytes = min(max(RAW_BYTES // max(self._streams, 1), RAW_LEAST), RAW_MOST)

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

    def __init__(self, fields: dict[str, msgspec.Raw], way: Continuing, wish: Wish, allowance: Allowance) -> None:
        self._fields = fields
        self._by = way.by
        self._wish = wish
        self._allowance = allowance
        allowance.joined(1)
        self._closed = False
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
        self._longest_stop = max(map(len, self._stops), default=0)
        self._limits = _limits(fields)
        self._span = 0
        self._owed = ""
        """blanks at the seam that the client has and the engine was not told of; it begins with them again"""
        self._slack = 0
        """characters whose tokens usage may count though they are not in the text that goes on: an engine holds back what may
        begin a stop sequence, and what is owed comes again"""
        self._prompt_tokens: int | None = None
        self._tokens_before = 0
        self._counted = False
        """`_tokens_before` is what the engine that goes on counts"""
        self._total_told = False
        """the event after the last token came"""
        self._over = False
        """the client has the end, the engine goes on"""
        self.fault: Fault | None = None
        """the engine gave the answer up, or died and said so; the client has not seen that"""
        self.usage_in = b""
        """the last events that told usage"""
        self.tokens = 0
        """generated so far: what usage says beside the last text, else one per event with text"""
        self.seams = 0
        """times that it went on elsewhere"""

    # --- while an engine streams

    def passed(self, data: bytes) -> bytes:
        """Take a piece of the stream; return the whole events that may go to the client now."""
        if self._partial or not data.endswith(b"\n\n"):
            data = self._partial + data
            end = data.rfind(b"\n\n")
            end = 0 if end < 0 else end + 2
            data, self._partial = data[:end], data[end:]
        if (data.find(b'"abort"') >= 0 or data.find(b'"error"') >= 0) and self._possible:
            data = self._before_the_fault(data)
        if self.seams:
            return b"".join([self._keep(self._spliced(event)) for event in data.split(b"\n\n") if event])
        return self._keep(data)

    # --- when the replica is lost

    def request(self) -> bytes | None:
        """Return the body of the request that goes on; None where the text cannot be continued."""
        self._reduce()
        self._partial = b""
        if not self._possible or self._finished or self._exhausted:
            return None
        said = self._text.rstrip() if self._by == "messages" else self._text  # chat templates may trim
        self._owed = self._text[len(said) :]
        held = max(self._longest_stop - 1, 0) + len(self._owed)
        self._slack = held if self._prompt_tokens is not None else 0
        most = {name: _raw(limit - self.tokens + self._slack) for name, limit in self._limits.items()}
        fields = self._fields | most
        if least := _number(fields, "min_tokens"):
            fields["min_tokens"] = _raw(max(least - self.tokens, 0))
        if said and self._by == "messages":
            message = _raw({"role": "assistant", "content": said})
            fields["messages"] = _raw([*_LIST.decode(self._fields["messages"]), message])
            fields |= {"continue_final_message": _raw(True), "add_generation_prompt": _raw(False)}  # noqa: FBT003
        elif said:
            fields["prompt"] = _raw(msgspec.json.decode(self._fields["prompt"]) + said)
        return msgspec.json.encode(fields)

    def ending(self) -> bytes | None:
        """Return what is missing of a stream whose last token had come, or None: it needs to go on."""
        self._reduce()
        if not self._possible:
            return None
        if self._finished:
            return usage.shown((b"" if self._total_told else self._total(self.tokens)) + _DONE, self._wish)
        return usage.shown(self._finish("length", self.tokens), self._wish) if self._exhausted else None

    def seam(self) -> None:
        """The stream goes on at another replica from here."""
        self.seams += 1
        self.fault = None
        self._partial = b""
        self._span = len(self._text)
        self._tokens_before, self._counted = self.tokens, False

    def close(self) -> None:
        """The stream is over: give its memory back."""
        if not self._closed:
            self._closed = True
            self._allowance.joined(-1)
        self._allowance.give(self._taken)
        self._taken = 0
        self._possible = False
        self._raw.clear()

    # --- inside

    def _keep(self, data: bytes) -> bytes:
        """Note what the client gets, with usage; return it as the client asked for it."""
        if self._possible and data:
            self._raw.append(data)
            self._raw_bytes += len(data)
            if self._raw_bytes >= self._allowance.raw_bytes:
                self._reduce()
        if data.find(b'"usage"') < 0:
            return data
        self.usage_in = data
        return usage.shown(data, self._wish)

    @property
    def _exhausted(self) -> bool:
        """Whether as much has been generated as the request allows."""
        return any(limit <= self.tokens for limit in self._limits.values())

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
            told = chunk.usage
            if told is not None:
                self._total_told = not chunk.choices
                self._prompt_tokens = told.prompt_tokens
            for choice in chunk.choices:
                delta = choice.delta or {}
                if any(value for key, value in delta.items() if key not in {"role", "content"}):
                    self._possible = False
                if text := _text(choice):
                    parts.append(text)
                    self.tokens = self.tokens + 1 if told is None else told.completion_tokens
                self._finished = choice.finish_reason or self._finished
        text = "".join(parts)
        if self._taken + len(text) > MAX_BYTES or not self._allowance.take(len(text)):
            self._possible = False
        else:
            self._taken += len(text)
        self._text = self._text + text if self._possible else ""

    def _before_the_fault(self, data: bytes) -> bytes:
        """Return the events before the one in which an engine that shuts down or dies gives the answer up."""
        kept = []
        for event in data.split(b"\n\n")[:-1]:
            said = event.removeprefix(b"data:")
            self.fault = Fault.ABORTED if aborted(said) else Fault.DEAD if dead(said) else None
            if self.fault is not None:
                break
            kept.append(event + b"\n\n")
        return b"".join(kept)

    def _spliced(self, event: bytes) -> bytes:
        """Return an event of a later engine as one of the first stream; empty: the client has it already, or is done."""
        if self._over or event.startswith(b":"):
            return b""
        chunk = _chunk(event)
        if chunk is None:
            return event + b"\n\n"
        if chunk.choices and not any(_speaks(choice) for choice in chunk.choices):
            return b""  # the opening of the later engine's stream
        fields = _FIELDS.decode(event.removeprefix(b"data:"))
        if self._owed and chunk.choices and not self._repay(chunk.choices[0], fields):
            return b""
        whole = self._whole(msgspec.json.decode(fields["usage"])) if chunk.usage else {}
        generated = whole.get("completion_tokens", 0)
        if self._stopped(chunk):
            return self._finish("stop", generated or self.tokens)
        fields |= {"id": _raw(self._id), "created": _raw(self._created)}
        if whole:
            fields["usage"] = _raw(whole)
        spliced = b"data: " + msgspec.json.encode(fields) + b"\n\n"
        surplus = any(generated >= limit for limit in self._limits.values())
        if surplus and chunk.choices and not any(choice.finish_reason for choice in chunk.choices):
            return spliced + self._finish("length", generated)
        return spliced

    def _repay(self, choice: _Choice, fields: dict[str, msgspec.Raw]) -> bool:
        """Take from a chunk's text what it owes; return whether there is something left to say."""
        text, owed = _text(choice), self._owed
        same = next((n for n, pair in enumerate(zip(text, owed, strict=False)) if len(set(pair)) > 1), None)
        paid = min(len(text), len(owed)) if same is None else same
        rest = text[paid:]
        self._owed = "" if rest else owed[paid:]
        if paid:
            choices = msgspec.json.decode(fields["choices"])
            if choice.text is not None:
                choice.text = choices[0]["text"] = rest
            else:
                choice.delta = choices[0]["delta"] = {**choices[0]["delta"], "content": rest}
            fields["choices"] = _raw(choices)
        return bool(rest or not paid or choice.finish_reason)

    def _stopped(self, chunk: _Chunk) -> bool:
        """Whether a stop sequence ends in this chunk that began before the seam, which no engine can see."""
        longest = self._longest_stop
        if not longest or not chunk.choices:
            return False
        self._reduce()
        before = self._text[max(self._span - longest + 1, 0) :]
        new = _text(chunk.choices[0])
        return len(self._text) - self._span < longest and any(stop in before + new for stop in self._stops)

    def _whole(self, told: dict[str, Any]) -> dict[str, Any]:
        """Return usage of the whole answer: a later engine counts the text before the seam as its prompt."""
        if self._prompt_tokens is not None and not self._counted:
            before = told.get("prompt_tokens", 0) - self._prompt_tokens
            if self._tokens_before - self._slack <= before <= self._tokens_before:
                self._tokens_before = before
            self._counted = True
        merged, before = dict(told), self._tokens_before
        prompt_tokens = self._prompt_tokens or max(int(told.get("prompt_tokens") or 0) - before, 0)
        merged["prompt_tokens"] = prompt_tokens
        merged["completion_tokens"] = int(told.get("completion_tokens") or 0) + before
        merged["total_tokens"] = merged["prompt_tokens"] + merged["completion_tokens"]
        return merged

    def _finish(self, reason: str, tokens: int) -> bytes:
        """Return the events that end the answer for this reason."""
        self._over, self._finished = True, reason
        empty: dict[str, Any] = {"delta": {}} if self._by == "messages" else {"text": ""}
        choice = {"index": 0, **empty, "logprobs": None, "finish_reason": reason}
        return self._event([choice], tokens) + self._total(tokens) + _DONE

    def _total(self, tokens: int) -> bytes:
        """Return the event that tells the usage of the whole; nothing where that is unknown."""
        return b"" if self._prompt_tokens is None else self._event([], tokens)

    def _event(self, choices: list[Any], tokens: int) -> bytes:
        chunk: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion.chunk" if self._by == "messages" else "text_completion",
            "created": self._created,
            "model": self._fields.get("model"),
            "choices": choices,
        }
        before = self._prompt_tokens
        if before is not None:
            chunk["usage"] = {"prompt_tokens": before, "total_tokens": before + tokens, "completion_tokens": tokens}
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def continuation(kind: Path, body: bytes, allowance: Allowance) -> tuple[Continuation | None, bytes]:
    """Return a continuation where every field of a streamed request can be taken over a seam, and the request to send."""
    way = kind.continuing
    if way is None:
        return None, body
    fields = _FIELDS.decode(body)
    if not fields.keys() <= way.fields or bytes(fields.get("n", b"1")) not in {b"1", b"null"}:
        return None, body
    if not bytes(fields.get(way.by, b"")).startswith(b'"' if way.by == "prompt" else b"["):
        return None, body
    try:
        wish = usage.wish(fields)
    except msgspec.DecodeError:
        return None, body  # the engine is to judge it
    if way.usage:
        body = usage.asking(body, fields)
        fields["stream_options"] = msgspec.Raw(usage.OPTIONS)
    return Continuation(fields, way, wish, allowance), body


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


def _text(choice: _Choice) -> str:
    return choice.text or (choice.delta or {}).get("content") or ""


def _number(fields: dict[str, msgspec.Raw], name: str) -> int | None:
    value = msgspec.json.decode(fields[name]) if name in fields else None
    return value if isinstance(value, int) else None


def _limits(fields: dict[str, msgspec.Raw]) -> dict[str, int]:
    found = {name: _number(fields, name) for name in ("max_tokens", "max_completion_tokens")}
    return {name: limit for name, limit in found.items() if limit is not None}


def _stops(fields: dict[str, msgspec.Raw]) -> list[str]:
    stop = msgspec.json.decode(fields["stop"]) if "stop" in fields else None
    return [stop] if isinstance(stop, str) else [text for text in stop or [] if isinstance(text, str)]


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
