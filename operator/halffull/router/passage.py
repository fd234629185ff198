"""The path of a request: parse -> admit -> order -> choose -> send -> relay -> account, in this order in this file.

`proxy` takes requests from `client` and makes a `Passage` of each. Callbacks of `client` and `upstream` drive it, the
dispatcher decides; there is no task per request. Prompts and answers are relayed, never kept or logged.
"""

from math import ceil
from typing import TYPE_CHECKING

from halffull.core.books import Replica
from halffull.core.errors import Failure, Reason
from halffull.core.exchange import Exchange
from halffull.core.faults import Blame, Fault
from halffull.engines.base import Dialect, Path, aborted, dead
from halffull.router import ending
from halffull.router.answers import dialect
from halffull.router.answers.answer import Answer
from halffull.router.answers.dialect import Event
from halffull.router.answers.resume import Continuation
from halffull.router.asked import Asked
from halffull.router.http import framing
from halffull.router.http.client import Client
from halffull.router.http.framing import Headers
from halffull.router.http.head import Head
from halffull.router.http.upstream import Upstream

if TYPE_CHECKING:
    from halffull.router.proxy import Proxy

CLIENT_GONE = 499
"""status in logs and traces of a request whose client went away"""
_NOT_STARTED = {Event.BUSY: Fault.BUSY_IN_STREAM, Event.ABORTED: Fault.ABORTED, Event.DEAD: Fault.DEAD}


class Passage:
    """One request on its way through the router."""

    __slots__ = (
        "_answer", "_asked", "_chunked", "_client", "_continuation", "_events", "_flowing", "_kind", "_proxy",
        "_reconnected", "_upstream", "arrived", "deadline", "exchange", "request_id",
    )  # fmt: skip

    def __init__(self, proxy: "Proxy", client: Client, head: Head, kind: Path, body: bytes) -> None:
        self._proxy = proxy
        self._client = client
        self._kind = kind
        self._asked = Asked(head, kind, body)
        self.request_id = proxy.request_id(head)
        self.arrived = proxy.clock()
        self.deadline = self.arrived + proxy.settings.request_s
        self.exchange: Exchange | None = None
        self._upstream: Upstream | None = None
        self._reconnected = False
        self._flowing = 0
        """status with which bytes of the answer went to the client; 0: none have"""
        self._events = self._chunked = False
        """... as server-sent events; in chunks"""
        self._continuation: Continuation | None = None
        self._answer = Answer()

    # --- 1. parse

    def parse(self) -> Failure | None:
        """Read of head and body what scheduling needs; return why the request is refused, if it is."""
        failure = self._asked.read(self._proxy, self.request_id)
        self._continuation = self._asked.continuation
        return failure

    # --- 2. admit, 3. order, 4. choose: the dispatcher's

    def admit(self) -> None:
        """Hand the request to the dispatcher, which queues it, refuses it, or chooses its replica at once."""
        proxy = self._proxy
        self._client.answering = self
        request = self._asked.request(proxy, self.request_id, self.arrived)
        self.exchange = proxy.place(request, self)
        proxy.passages.add(self)
        proxy.carry_out([self.exchange])

    # --- 5. send

    def send(self, exchange: Exchange, replica: Replica) -> None:
        """The dispatcher chose `replica`: send on an idle connection, or open one."""
        proxy = self._proxy
        if self._upstream is not None:
            self._take_back()
            proxy.telemetry.moves["moved"] += 1
        upstream = proxy.engines.take(replica)
        if upstream is None:
            proxy.engines.connect(replica, self, exchange.attempts)
        else:
            self.connected(upstream, replica, exchange.attempts)

    def connected(self, upstream: Upstream, replica: Replica, attempt: int) -> None:
        """Write the request, unless it has moved on meanwhile."""
        exchange = self.exchange
        if exchange is None or exchange.replica is not replica or exchange.attempts != attempt:
            upstream.release()
            return
        self._upstream = upstream
        self._proxy.telemetry.of(replica.name).requests += 1
        self._proxy.dispatcher.sent(exchange, self._proxy.clock())
        head, body = self._asked.head, self._proxy.ranked(self._kind, exchange.request, self._asked.body)
        start = (head.method, head.target)
        whole = framing.request_head(start, replica.address, self._asked.lines, self.request_id, len(body))
        upstream.request(self, whole, body)
        if self._client.paused:  # it goes on elsewhere for a client that has not caught up
            upstream.pause()
            exchange.hold_back(held=True)

    def unreachable(self, replica: Replica, attempt: int, reason: str) -> None:
        """No connection to the replica could be opened."""
        exchange = self.exchange
        if exchange is not None and exchange.replica is replica and exchange.attempts == attempt:
            self._fault(Fault.UNREACHABLE, reason)

    def exhausted(self, replica: Replica, attempt: int) -> None:
        """The router can open no further connection: no replica's fault, and no other would help."""
        exchange = self.exchange
        if exchange is not None and exchange.replica is replica and exchange.attempts == attempt:
            message = "The router can open no further connection."
            self.expire(Failure(Reason.NO_CONNECTION, message, retry_after_s=1))

    # --- 6. relay: called by the connection to the engine

    def answer_head(self, status: int, headers: Headers, fields: dict[bytes, bytes]) -> None:
        """Note the answer's head; it goes out when the answer has started."""
        if self.exchange is not None and self.exchange.replica is not None:
            self.exchange.replica.health.heard = True
        self._answer.begin(status, headers, fields)

    def answer_data(self, data: bytes) -> None:
        """Pass a piece of the answer on, or hold it back until the answer has started."""
        if self._answer.started:
            self._relay(data)
            return
        meaning = self._answer.hold(data, self._kind.dialect)
        if meaning is Event.STARTED:
            self._start()
        elif meaning is not Event.OPENING:
            self._fault(_NOT_STARTED[meaning])

    def _start(self) -> None:
        """The answer has started, here or, where it goes on, again: from now on the request cannot simply be moved."""
        proxy, exchange, answer, now = self._proxy, self.exchange, self._answer, self._proxy.clock()
        if exchange is None or exchange.replica is None:
            return
        proxy.dispatcher.started(exchange, now)
        answer.started = True
        opening = answer.release()
        if not answer.events and self._flowing:
            self._not_continued()
            return
        if not answer.events and self._continuation is not None:  # the engine does not stream
            self._continuation.close()
            self._continuation = None
        if not self._flowing:
            self._flowing, self._events = answer.status, answer.events
            self._chunked = self._client.begin(answer.status, self._own_lines())
            if answer.events:
                proxy.telemetry.of(exchange.replica.name).first_token(now, now - self.arrived)
        if self._kind.dialect is Dialect.RESPONSES and (stored := dialect.response_id(opening)):
            proxy.remember(stored, exchange.replica.name)
        self._relay(opening)
        if proxy.dispatcher.queue:
            proxy.release()  # a replica whose trial this was takes more now

    def _relay(self, data: bytes) -> None:
        answer, exchange, continuation = self._answer, self.exchange, self._continuation
        tokens = answer.familiar(data) if answer.events else 0
        if continuation is not None:
            data = continuation.familiar(data, tokens, answer.pattern) if tokens else continuation.passed(data)
        if data:
            self._client.write(framing.chunk(data) if self._chunked else data)
        if answer.events and exchange is not None and exchange.replica is not None:
            exchange.replica.health.heard = True
            self._proxy.dispatcher.progressed(exchange, tokens or answer.passed(data, self._kind.dialect))
        if continuation is not None and continuation.fault is not None:
            self._fault(continuation.fault)
        elif continuation is not None and continuation.over:
            self._drop_upstream()  # else the engine would go on for nobody
            self._close()

    def answer_end(self) -> None:
        """The answer is complete by its framing; whether it is one, its content says."""
        self._upstream = None
        if self._answer.started:
            if self._answer.events and not self._answer.closed:
                self._fault(Fault.CUT)
            else:
                self._close()
            return
        body = self._answer.release()
        if self._answer.status in {429, 503}:
            self._fault(Fault.BUSY, pause_s=self._answer.retry_after_s)
        elif self._answer.events and not dialect.ends(self._kind.dialect, body):
            self._fault(Fault.CUT)
        elif self._answer.status == 200 and aborted(body):
            self._fault(Fault.ABORTED)
        elif self._answer.status == 500 and dead(body):
            self._fault(Fault.DEAD)
        elif self._flowing:
            self._not_continued()
        else:
            self._answer_whole(body)

    def _close(self) -> None:
        """The answer that flows is complete."""
        if self._chunked:
            self._client.write(framing.LAST_CHUNK)
        self._account(*dialect.stream_usage((self._continuation or self._answer).usage_in))
        self._client.end()

    def _answer_whole(self, body: bytes) -> None:
        proxy, exchange = self._proxy, self.exchange
        prompt_tokens = generated = None
        if self._answer.status == 200 and body[:1] == b"{":
            prompt_tokens, generated, made = dialect.usage(body)
            if made is not None and made.startswith("resp_") and exchange is not None and exchange.replica is not None:
                proxy.remember(made, exchange.replica.name)
        if exchange is not None:
            proxy.dispatcher.started(exchange, proxy.clock())
        lines = self._own_lines()
        self._account(prompt_tokens, generated)
        self._client.respond(self._answer.status, lines, body)

    # --- 7. account

    def _account(self, prompt_tokens: int | None, generated: int | None) -> None:
        """Close the books of an answer that was relayed to its end; learn from its usage."""
        proxy, exchange, now = self._proxy, self.exchange, self._proxy.clock()
        proxy.telemetry.completed += 1
        proxy.telemetry.answers[proxy.adapter.label(self._asked.head.path), self._answer.status] += 1
        if exchange is None or exchange.replica is None:
            return
        if generated is not None:
            proxy.dispatcher.progressed(exchange, generated - exchange.generated)
        proxy.tokens.counted(self._asked.prompt, prompt_tokens)
        proxy.telemetry.of(exchange.replica.name).finished(
            prompt_tokens or exchange.asked.prompt_tokens, exchange.generated,
            now - exchange.started_at if self._answer.events and exchange.started_at is not None else None,
        )  # fmt: skip
        self._leave(self._answer.status)
        proxy.carry_out(proxy.dispatcher.finished(exchange, now))

    # --- what goes wrong

    def answer_lost(self, reason: str, *, reused: bool) -> None:
        """The connection to the engine ended before the answer did."""
        self._upstream = None
        exchange = self.exchange
        if exchange is None or exchange.replica is None:
            return
        if not self._answer.started and reused and not self._reconnected and exchange.request.resendable:
            # The engine closed a resting connection just as we used it: that says nothing of the engine.
            self._reconnected = True
            self._proxy.engines.connect(exchange.replica, self, exchange.attempts)
        else:
            self._fault(Fault.LOST, reason)

    def replica_died(self, why: str) -> None:
        """Its replica was found dead."""
        self._fault(Fault.SILENT, why)

    def _fault(self, fault: Fault, detail: str = "", pause_s: float = 0.0) -> None:
        """Do what the table of faults says: try elsewhere what has not started, continue elsewhere or end what has."""
        proxy, exchange, treatment = self._proxy, self.exchange, fault.treatment
        if exchange is None or exchange.replica is None:
            return
        message = f"{treatment.message}: {detail}." if detail else f"{treatment.message}."
        busy = treatment.blame is Blame.BUSY
        failure = Failure(treatment.reason, message, retry_after_s=max(ceil(pause_s), 1) if busy else None)
        proxy.telemetry.of(exchange.replica.name).failures += 1
        if self._flowing and not self._continue(failure, fault):
            return
        self._take_back()
        moved = proxy.dispatcher.not_started(exchange, failure, fault, proxy.clock(), pause_s)
        if exchange.failure is None:
            proxy.telemetry.moves[treatment.reason.header] += 1
        proxy.carry_out(moved)

    def _take_back(self) -> None:
        """End it where it was sent; what came from there so far does not count."""
        self._drop_upstream()
        self._reconnected = False
        self._answer = Answer()

    def _continue(self, failure: Failure, fault: Fault) -> bool:
        """Make this request the one that goes on from what the client has; if it cannot, end the answer."""
        proxy, exchange, continuation = self._proxy, self.exchange, self._continuation
        missing = b"" if self._answer.whole else continuation.ending() if continuation is not None else None
        if missing is not None:  # only its end was lost
            self._drop_upstream()
            self._client.write(framing.chunk(missing) if self._chunked and missing else missing)
            self._close()
            return False
        if exchange is None or continuation is None or (body := continuation.request()) is None:
            self._break(failure, fault)
            return False
        self._asked.body = body
        proxy.dispatcher.progressed(exchange, continuation.tokens - exchange.generated)
        continuation.seam()
        proxy.telemetry.continued += 1
        return True

    def _not_continued(self) -> None:
        """What was to go on has been answered with something else."""
        self._break(Failure(Reason.ENGINE_BROKEN, f"The answer could not be continued: {self._answer.status}."))

    def _break(self, failure: Failure, fault: Fault | None = None) -> None:
        """The answer has started: it ends with an error that the client can see, never silently."""
        proxy, exchange = self._proxy, self.exchange
        if exchange is None:
            return
        proxy.telemetry.failures[failure.reason.header] += 1
        self._drop_upstream()
        self._leave(self._flowing, failure.reason.header)
        if self._events:
            events = dialect.error_events(self._kind.dialect, failure)
            self._client.write(framing.chunk(events) + framing.LAST_CHUNK if self._chunked else events)
            self._client.end()
        else:
            self._client.abort()
        proxy.carry_out(proxy.dispatcher.broken(exchange, failure, proxy.clock(), fault))

    def fail(self, failure: Failure) -> None:
        """Answer with an error, or end with one what flows; the dispatcher holds nothing of this request."""
        if self._flowing:
            self._break(failure)
            return
        self._leave(failure.reason.status, failure.reason.header)
        self._proxy.answer(self._client, self._asked.head, failure, self.request_id)

    def expire(self, failure: Failure) -> None:
        """The request took longer than it may, or than the router lives: it ends with an error, wherever it is."""
        proxy, exchange = self._proxy, self.exchange
        if self._flowing:
            self._break(failure)
        elif exchange is not None and not exchange.phase.ended:
            self._drop_upstream()
            proxy.carry_out(proxy.dispatcher.broken(exchange, failure, proxy.clock()))
            self.fail(failure)

    def spoil(self) -> None:
        """A fault of ours: the request ends with an error, or, where that is what cannot be written, with its connection."""
        exchange = self.exchange
        if exchange is None or exchange.phase.ended:
            self._client.abort()
        else:
            self.expire(Failure(Reason.INTERNAL, "The router failed at this request, which is its fault."))

    def client_gone(self) -> None:
        """Nobody waits for the answer: close to the engine, which frees the GPU."""
        proxy, exchange = self._proxy, self.exchange
        if exchange is None:
            return
        proxy.telemetry.cancelled += 1
        self._drop_upstream()
        self._leave(CLIENT_GONE)
        proxy.carry_out(proxy.dispatcher.cancel(exchange, proxy.clock()))

    def pause(self) -> None:
        """The client reads slower than the engine writes: let the engine wait."""
        if self._upstream is not None:
            self._upstream.pause()
            if self.exchange is not None:
                self.exchange.hold_back(held=True)

    def resume(self) -> None:
        """The client has caught up."""
        if self._upstream is not None:
            self._upstream.resume()
            if self.exchange is not None:
                self.exchange.hold_back(held=False)

    # --- inside

    def _own_lines(self) -> tuple[bytes, bytes]:
        exchange = self.exchange
        replica = exchange.replica.name if exchange is not None and exchange.replica is not None else ""
        return self._answer.lines, framing.own_lines(self.request_id, replica)

    def _leave(self, status: int, reason: str = "") -> None:
        """The request is over. Passage and exchange let go of each other, so that no garbage collector need come."""
        self._proxy.passages.discard(self)
        if self._proxy.witnesses:
            ending.tell(self._proxy, self, self._asked, status=status, reason=reason)
        if self._continuation is not None:
            self._continuation.close()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.host = None

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
