"""One request inside a simulated engine: from tokens that the model says exist to bytes that the client gets.

Made by the server for each request for text; called back by `pace` as its sequences progress. Events are written straight
to the connection, as HTTP chunks of our own framing: a coroutine switch per token would cost more than the token.
"""

import asyncio
import time
from collections.abc import Sequence

from aiohttp import web

from halffull.sim import language
from halffull.sim.dialect.base import ENDED, Choice, Dialect, Reply, Stream, compact
from halffull.sim.engine_model import EngineSequence
from halffull.sim.generation import Generation, RefusedError, output_limit
from halffull.sim.pace import Slot

SSE_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8"}


class EventWriter:
    """Writes server-sent events to an open connection, each as one HTTP chunk; what the client does not read piles up here."""

    def __init__(self, request: web.Request) -> None:
        self._transport = request.transport
        self._chunked = request.version >= (1, 1)

    def write(self, events: Sequence[bytes]) -> None:
        """Send events in one write; nothing if the client has gone."""
        transport = self._transport
        if events and transport is not None and not transport.is_closing():
            framed = [b"%x\r\n%b\r\n" % (len(event), event) for event in events] if self._chunked else events
            transport.write(b"".join(framed))


class Answering:
    """The job of one request: its reply, its sequences, and where its events go (nowhere: a plain answer)."""

    def __init__(self, dialect: Dialect, reply: Reply, session: str = "") -> None:
        self.reply = reply
        self.ended = asyncio.Event()
        self.sequences = [
            EngineSequence(
                choice.prompt.tokens,
                len(choice.answer.pieces),
                choice.block_hashes,
                owner=Slot(self, index, choice.answer.finish_reason, choice.max_tokens),
                session=session,
            )
            for index, choice in enumerate(reply.choices)
        ]
        self._open = len(self.sequences)
        self._stream = dialect.stream(reply) if reply.generation.stream else None
        self._writer: EventWriter | None = None
        self._opened = False

    def stream_to(self, writer: EventWriter) -> None:
        """Send the events of a streamed answer to `writer` from now on."""
        self._writer = writer
        if self._stream is not None and self._stream.early:
            self._opened = True
            writer.write(self._stream.opening())

    def progressed(self, index: int, sequence: EngineSequence, generated: int, reason: str | None) -> None:
        """Note what a sequence has made; send the events of its new tokens."""
        choice = self.reply.choices[index]
        choice.cached_tokens = sequence.cached_tokens
        if reason is not None:
            self._open -= 1
        if self._writer is None or self._stream is None:
            choice.generated, choice.finish_reason = generated, reason
        else:
            self._writer.write(self._events(self._stream, index, generated, reason))
        if not self._open:
            self.ended.set()

    def _events(self, stream: Stream, index: int, generated: int, reason: str | None) -> list[bytes]:
        choice = self.reply.choices[index]
        events = [] if self._opened else stream.opening()
        self._opened = True
        for position in range(choice.generated, generated):
            choice.generated = position + 1
            last = reason if choice.generated == generated else None
            choice.finish_reason = last
            events += stream.token(index, choice.answer.pieces[position], last)
        if reason is not None and choice.finish_reason is None:  # aborted between two tokens
            choice.finish_reason = reason
            events += stream.token(index, "", reason)
        return events if self._open else events + stream.closing()


def compose(generation: Generation, request_id: str, model: str, max_model_len: int, block_size: int) -> Reply:
    """Return the reply to a request: the text of every answer is known now, the model says when each token of it exists.

    `block_size` is that of the prefix cache, 0 without one. RefusedError (400) if the context is too small for the request.
    """
    reply = Reply(request_id, int(time.time()), model, generation)
    for prompt in generation.prompts:
        limit = output_limit(generation, prompt, max_model_len)
        answer = language.answer(
            prompt.text,
            limit,
            least=min(generation.min_tokens, limit),
            endless=generation.ignore_eos,
            stop=generation.stop,
        )
        hashes = language.block_hashes(prompt.text, block_size) if block_size else ()
        reply.choices += [Choice(prompt, answer, limit, hashes) for _ in range(generation.n)]
    return reply


def busy_events(refused: RefusedError) -> list[bytes]:
    """Return the stream of a refusal that came too late for an HTTP status: one error event, then the end."""
    document = {"error": refused.document["error"]}
    return [b"data: " + compact(document).encode() + b"\n\n", ENDED]
