"""Continuation: a stream that lost its replica goes on at another from the text already sent, as one unbroken stream.

`passage` keeps one per streamed request that may be continued. The client gets whole events only, so that the seam never falls
into one. What follows the seam is a valid continuation, with greedy decoding the very one that would have come.

Bytes are searched with `find`: `in` asks them first whether they are a number, and the exception costs more than the search.
"""

from typing import Any

import msgspec

from halffull.core.faults import Fault
from halffull.engines.base import Continuing, Path, aborted, dead
from halffull.router.answers import usage
from halffull.router.answers.chunks import Choice, Chunk, chunk_in, tells
from halffull.router.answers.pattern import Pattern
from halffull.router.answers.transcript import Allowance, Transcript
from halffull.router.answers.usage import Wish
from halffull.router.unreadable import UNREADABLE

_DONE = b"data: [DONE]\n\n"
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


class Continuation:
    """What of one stream has gone to its client, and how it goes on."""

    def __init__(self, fields: dict[str, msgspec.Raw], way: Continuing, wish: Wish, allowance: Allowance) -> None:
        """Raises one of UNREADABLE where a field that matters at a seam cannot be read."""
        self._fields = fields
        self._by = way.by
        self._wish = wish
        self._stops = _stops(fields)
        self._longest_stop = max(map(len, self._stops), default=0)
        self._limits = _limits(fields)
        if way.limit is not None and "max_tokens" not in fields:
            self._limits["max_tokens"] = way.limit
        self._least = _number(fields, "min_tokens") or 0
        self._sent = Transcript(allowance)
        self._partial = b""
        self._span = 0
        self._owed = ""
        """blanks at the seam that the client has and the engine was not told of; it begins with them again"""
        self._slack = 0
        """characters whose tokens usage may count though they are not in the text that goes on: an engine holds back what may
        begin a stop sequence, and what is owed comes again"""
        self._tokens_before = 0
        self._counted = False
        """`_tokens_before` is what the engine that goes on counts"""
        self.over = False
        """the client has the end, the engine goes on"""
        self.fault: Fault | None = None
        """the engine gave the answer up, or died and said so; the client has not seen that"""
        self.usage_in = b""
        """the last events that told usage"""
        self.seams = 0
        """times that it went on elsewhere"""

    # --- while an engine streams

    def passed(self, data: bytes) -> bytes:
        """Take a piece of the stream; return the whole events that may go to the client now, their lines ended by LF alone."""
        if data.find(b"\r") >= 0:
            data = data.replace(b"\r", b"")  # it stands in no text, and may have come without its LF
        if self._partial or not data.endswith(b"\n\n"):
            data = self._partial + data
            end = data.rfind(b"\n\n")
            end = 0 if end < 0 else end + 2
            data, self._partial = data[:end], data[end:]
        if (data.find(b'"abort"') >= 0 or data.find(b'"error"') >= 0) and self._sent.possible:
            data = self._before_the_fault(data)
        if self.seams:
            return b"".join([self._keep(self._spliced(event)) for event in data.split(b"\n\n") if event])
        return self._keep(data)

    def familiar(self, data: bytes, events: int, pattern: Pattern) -> bytes:
        """Take a piece of so many events that `pattern` knew again; return them as the client asked for them."""
        if self.seams:
            return self.passed(data)
        self._sent.keep_text(events, pattern.text, data)
        return data if self._wish is Wish.EACH else pattern.bare

    # --- when the replica is lost

    def request(self) -> bytes | None:
        """Return the body of the request that goes on; None where the text cannot be continued."""
        self._sent.read()
        self._partial = b""
        if not self._sent.possible or self._sent.finished or self._exhausted:
            return None
        said = self._sent.text.rstrip() if self._by == "messages" else self._sent.text  # chat templates may trim
        self._owed = self._sent.text[len(said) :]
        held = max(self._longest_stop - 1, 0) + len(self._owed)
        self._slack = held if self._sent.prompt_tokens is not None else 0
        most = {name: _raw(limit - self._sent.tokens + self._slack) for name, limit in self._limits.items()}
        fields = self._fields | most
        if self._least:
            fields["min_tokens"] = _raw(max(self._least - self._sent.tokens, 0))
        if said and self._by == "messages":
            message = _raw({"role": "assistant", "content": said})
            fields["messages"] = _raw([*_LIST.decode(self._fields["messages"]), message])
            fields |= {"continue_final_message": _raw(True), "add_generation_prompt": _raw(False)}  # noqa: FBT003
        elif said:
            fields["prompt"] = _raw(msgspec.json.decode(self._fields["prompt"]) + said)
        return msgspec.json.encode(fields)

    def ending(self) -> bytes | None:
        """Return what is missing of a stream whose last token had come, or None: it needs to go on."""
        self._sent.read()
        if not self._sent.possible:
            return None
        if self._sent.finished:
            missing = (b"" if self._sent.total_told else self._total(self._sent.tokens)) + _DONE
        elif self._exhausted:
            missing = self._finish("length", self._sent.tokens)
        else:
            return None
        if missing.find(b'"usage"') >= 0:
            self.usage_in = missing
        return usage.shown(missing, self._wish)

    def seam(self) -> None:
        """The stream goes on at another replica from here."""
        self.seams += 1
        self.fault = None
        self._partial = b""
        self._span = len(self._sent.text)
        self._tokens_before, self._counted = self._sent.tokens, False

    def close(self) -> None:
        """The stream is over: give its memory back."""
        self._sent.close()

    @property
    def tokens(self) -> int:
        """Tokens that went to the client, as of the last `request`."""
        return self._sent.tokens

    # --- inside

    def _keep(self, data: bytes) -> bytes:
        """Note what the client gets, with usage; return it as the client asked for it."""
        self._sent.keep(data)
        if data.find(b'"usage"') < 0:
            return data
        self.usage_in = data
        return usage.shown(data, self._wish)

    @property
    def _exhausted(self) -> bool:
        """Whether as much has been generated as the request allows."""
        return any(limit <= self._sent.tokens for limit in self._limits.values())

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
        if self.over or (event.startswith(b":") and not tells(event)):
            return b""
        chunk = chunk_in(event)
        if chunk is None:
            return event + b"\n\n"
        if chunk.choices and not any(choice.speaks for choice in chunk.choices):
            return b""  # the opening of the later engine's stream
        fields = _FIELDS.decode(event.removeprefix(b"data:"))
        if self._owed and chunk.choices and not self._repay(chunk.choices[0], fields):
            return b""
        whole = self._whole(msgspec.json.decode(fields["usage"])) if chunk.usage else {}
        generated = whole.get("completion_tokens", 0)
        if self._stopped(chunk):
            return self._finish("stop", generated or self._sent.tokens)
        fields |= {"id": _raw(self._sent.id), "created": _raw(self._sent.created)}
        if whole:
            fields["usage"] = _raw(whole)
        spliced = b"data: " + msgspec.json.encode(fields) + b"\n\n"
        surplus = any(generated >= limit for limit in self._limits.values())
        if surplus and chunk.choices and not any(choice.finish_reason for choice in chunk.choices):
            return spliced + self._finish("length", generated)
        return spliced

    def _repay(self, choice: Choice, fields: dict[str, msgspec.Raw]) -> bool:
        """Take from a chunk's text what it owes; return whether there is something left to say."""
        text, owed = choice.said, self._owed
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

    def _stopped(self, chunk: Chunk) -> bool:
        """Whether a stop sequence ends in this chunk that began before the seam, which no engine can see."""
        longest = self._longest_stop
        if not longest or not chunk.choices:
            return False
        self._sent.read()
        before = self._sent.text[max(self._span - longest + 1, 0) :]
        new = chunk.choices[0].said
        return len(self._sent.text) - self._span < longest and any(stop in before + new for stop in self._stops)

    def _whole(self, told: dict[str, Any]) -> dict[str, Any]:
        """Return usage of the whole answer: a later engine counts the text before the seam as its prompt."""
        if self._sent.prompt_tokens is not None and not self._counted:
            before = told.get("prompt_tokens", 0) - self._sent.prompt_tokens
            if self._tokens_before - self._slack <= before <= self._tokens_before:
                self._tokens_before = before
            self._counted = True
        merged, before = dict(told), self._tokens_before
        prompt_tokens = self._sent.prompt_tokens or max(int(told.get("prompt_tokens") or 0) - before, 0)
        merged["prompt_tokens"] = prompt_tokens
        merged["completion_tokens"] = int(told.get("completion_tokens") or 0) + before
        merged["total_tokens"] = merged["prompt_tokens"] + merged["completion_tokens"]
        return merged

    def _finish(self, reason: str, tokens: int) -> bytes:
        """Return the events that end the answer for this reason."""
        self.over, self._sent.finished = True, reason
        empty: dict[str, Any] = {"delta": {}} if self._by == "messages" else {"text": ""}
        choice = {"index": 0, **empty, "logprobs": None, "finish_reason": reason}
        return self._event([choice], tokens) + self._total(tokens) + _DONE

    def _total(self, tokens: int) -> bytes:
        """Return the event that tells the usage of the whole; nothing where that is unknown."""
        return b"" if self._sent.prompt_tokens is None else self._event([], tokens)

    def _event(self, choices: list[Any], tokens: int) -> bytes:
        chunk: dict[str, Any] = {
            "id": self._sent.id,
            "object": "chat.completion.chunk" if self._by == "messages" else "text_completion",
            "created": self._sent.created,
            "model": self._fields.get("model"),
            "choices": choices,
        }
        before = self._sent.prompt_tokens
        if before is not None:
            chunk["usage"] = {"prompt_tokens": before, "total_tokens": before + tokens, "completion_tokens": tokens}
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def continuation(kind: Path, body: bytes, allowance: Allowance) -> tuple[Continuation | None, bytes]:
    """Return a continuation where every field of a streamed request can be taken over a seam, and the request to send.

    None, and the request as it is, where a field has a form that is not known: the engine is to judge it.
    """
    if kind.continuing is None:
        return None, body
    try:
        return _continuation(kind.continuing, body, allowance)
    except UNREADABLE:
        return None, body


def _continuation(way: Continuing, body: bytes, allowance: Allowance) -> tuple[Continuation | None, bytes]:
    """See `continuation`. Raises one of UNREADABLE."""
    fields = _FIELDS.decode(body)
    if not fields.keys() <= way.fields or bytes(fields.get("n", b"1")) not in {b"1", b"null"}:
        return None, body
    if not bytes(fields.get(way.by, b"")).startswith(b'"' if way.by == "prompt" else b"["):
        return None, body
    wish = usage.wish(fields)
    if way.usage:
        body = usage.asking(body, fields)
        fields["stream_options"] = msgspec.Raw(usage.OPTIONS)
    return Continuation(fields, way, wish, allowance), body


def _number(fields: dict[str, msgspec.Raw], name: str) -> int | None:
    """Return a whole number of a request, if it is there. Raises msgspec.DecodeError where the field is something else."""
    return msgspec.json.decode(fields[name], type=int | None) if name in fields else None


def _limits(fields: dict[str, msgspec.Raw]) -> dict[str, int]:
    found = {name: _number(fields, name) for name in ("max_tokens", "max_completion_tokens")}
    return {name: limit for name, limit in found.items() if limit is not None}


def _stops(fields: dict[str, msgspec.Raw]) -> list[str]:
    stop = msgspec.json.decode(fields["stop"]) if "stop" in fields else None
    stops = stop if isinstance(stop, list) else [stop]
    return [text for text in stops if isinstance(text, str)]


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
