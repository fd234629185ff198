"""Requests whose answers are known to the byte: simulated engines say the same to the same prompt.

Used by `crowd`. An answer that moved, or went on elsewhere after its replica died, must be the answer without that.
"""

import json
import re
from dataclasses import dataclass, field
from random import Random
from typing import Any

from halffull.local.prompts import Prompts
from halffull.sim.answering import compose
from halffull.sim.dialect.base import FINGERPRINT, Dialect, compact
from halffull.sim.dialect.chat import Chat
from halffull.sim.dialect.completions import Completions
from halffull.sim.trace import Call

MODEL = "m"
CONTEXT = 4096
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
_CREATED = re.compile(rb'"created":(\d+)')
_FINGERPRINT = f',"system_fingerprint":"{FINGERPRINT}"'.encode()
"""vLLM leaves it out of a stream's last event where usage is asked for, which routers do to count"""


@dataclass(frozen=True, slots=True)
class Question:
    """One request."""

    id: str
    path: str
    body: bytes
    stream: bool
    resumable: bool
    """the router may go on elsewhere with its stream"""
    dialect: Dialect = field(repr=False, compare=False)

    def answered_by(self, body: bytes) -> bool:
        """Whether this is the whole answer, byte by byte."""
        return body.replace(_FINGERPRINT, b"") == self._answer(body).replace(_FINGERPRINT, b"")

    def _answer(self, like: bytes) -> bytes:
        """Return what must come; the time of day in it is that of `like`, which came."""
        generation = self.dialect.parse(json.loads(self.body))
        reply = compose(generation, self.id, MODEL, CONTEXT, 0)
        found = _CREATED.search(like)
        reply.created = int(found[1]) if found else 0
        (choice,) = reply.choices
        last = len(choice.answer.pieces)
        if not self.stream:
            choice.generated, choice.finish_reason = last, choice.answer.finish_reason
            return compact(self.dialect.whole(reply)).encode()
        stream = self.dialect.stream(reply)
        events = stream.opening()
        for position, piece in enumerate(choice.answer.pieces, 1):
            choice.generated = position
            events += stream.token(0, piece, choice.answer.finish_reason if position == last else None)
        return b"".join(events + stream.closing())


@dataclass(frozen=True, slots=True)
class Mix:
    """Lengths and shares of requests."""

    prompt_tokens: tuple[int, int] = (20, 600)
    """uniform between these"""
    answer_tokens: tuple[int, int] = (40, 240)
    plain: float = 0.25
    """share of requests that do not stream"""
    chat: float = 0.6
    """share of requests for chat completions"""
    tools: float = 0.05
    """share of chat requests with tools, whose streams cannot go on elsewhere"""


class Questions:
    """Draws them, all different."""

    def __init__(self, seed: int, mix: Mix) -> None:
        self.mix = mix
        self._rng = Random(seed)
        self._prompts = Prompts(seed)
        self._number = 0

    def next(self) -> Question:
        """Return one more."""
        rng, mix = self._rng, self.mix
        self._number += 1
        text = self._prompts.text(Call(0.0, rng.randint(*mix.prompt_tokens), 1))
        limit = rng.randint(*mix.answer_tokens)
        chat, stream = rng.random() < mix.chat, rng.random() >= mix.plain
        body: dict[str, Any] = {"model": MODEL, "max_tokens": limit, "ignore_eos": rng.random() < 0.5}
        if stream:
            body["stream"] = True
            if rng.random() < 0.5:
                body["stream_options"] = {"include_usage": True}
        resumable = stream
        if chat:
            body["messages"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
            if rng.random() < mix.tools:
                body["tools"], resumable = TOOLS, False
        else:
            body["prompt"] = text
        path = "/v1/chat/completions" if chat else "/v1/completions"
        return Question(
            f"q{self._number}", path, json.dumps(body).encode(), stream, resumable, Chat() if chat else Completions()
        )
