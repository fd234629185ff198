"""All that the requests of one router share: clients, engines, dispatcher, counters. `app` makes it and tells it of the fleet.

It takes each request from its `client`, refuses what no engine would get, answers `/v1/models` itself, and makes a `Passage`
(in `passage`) of the rest.
"""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.core.errors import Failure, Reason
from halffull.core.exchange import Exchange, Phase
from halffull.core.values import Request, State
from halffull.engines.base import Adapter, Dialect, Path
from halffull.router.answers import dialect
from halffull.router.answers.transcript import Allowance
from halffull.router.engines import Engines
from halffull.router.http import framing
from halffull.router.http.client import Client, ClientLimits
from halffull.router.http.head import Head
from halffull.router.observability.telemetry import Ended, Telemetry
from halffull.router.passage import Passage
from halffull.router.requests.blocks import blocks_of
from halffull.router.requests.priority import Priority, number
from halffull.router.requests.prompt import Prompt
from halffull.router.requests.tokens import Tokens

if TYPE_CHECKING:
    from halffull.router.peers.sharing import Sharing

LOG = logging.getLogger(__name__)
BYTES_PER_TOKEN = 4.0
"""of text, until `usage` of an answer says better"""
REMEMBERED_RESPONSES = 10_000
"""stored responses whose replica is known"""
DEADLINES_S = 0.5
"""how often deadlines of connections and requests are looked at; a time-out comes up to this late"""
RANKED = frozenset({Dialect.OPENAI, Dialect.RESPONSES})
"""APIs whose requests have a field `priority`"""
OWN_PATHS = ("/v1/models", "/health")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says to the data path; replaced as a whole between two requests."""

    model: str
    aliases: frozenset[str] = frozenset()
    """further names that clients may use for `model`"""
    resume: bool = True
    """whether started streams go on elsewhere when they lose their replica"""
    priority: Priority = Priority.KEEP
    """what becomes of the field `priority`"""
    sessions: bool = False
    """whether engines are told a session with each request, by which they name it in events of their caches"""
    bytes_per_token: float = BYTES_PER_TOKEN
    """of text, until answers say better"""
    request_s: float = 600.0
    """longest time from arrival to the end of an answer"""
    clients: ClientLimits = field(default_factory=ClientLimits)


class Proxy:
    """The data path of one router."""

    def __init__(
        self, dispatcher: Dispatcher, adapter: Adapter, settings: Settings, clock: Callable[[], float], id_prefix: str
    ) -> None:
        self.dispatcher = dispatcher
        self.adapter = adapter
        self.settings = settings
        self.limits = settings.clients
        self.clock = clock
        self.engines = Engines(clock)
        self.telemetry = Telemetry()
        self.allowance = Allowance()
        self.block_key = secrets.token_bytes(16)
        """of hashes of prompts; who does not have it cannot tell what they stand for"""
        self.recording = False
        """witnesses want the hashes of each prompt"""
        self.tokens = Tokens(settings.bytes_per_token)
        self.clients: set[Client] = set()
        self.passages: set[Passage] = set()
        """requests that are not answered yet"""
        self.witnesses: list[Callable[[Ended], None]] = []
        """who hears of each request's end: logs, traces"""
        self.closing = False
        """connections end with their next answer"""
        self._ids = map((id_prefix + "{:x}").format, itertools.count(1))
        self._epoch = time.time() - clock()
        self._deadlines_seen = 0.0
        self._server: asyncio.Server | None = None
        self.made_by: dict[str, str] = {}
        """stored responses, and the replicas that made them"""
        self.placed: Callable[[Request, Replica], None] | None = None
        """who hears of each request that goes to a replica: what follows the engines' caches"""
        self.sharing: Sharing | None = None
        """what tells other routers and hears of them; None: there are none"""

    # --- for `app`: configuration, fleet, time

    def protocol(self) -> Client:
        """Make the protocol of one client connection (the factory of the public server)."""
        return Client(self, self.clock)

    async def listen(self, host: str, port: int, tls: SSLContext | None = None, *, reuse_port: bool = False) -> int:
        """Accept clients; return the port. Raises OSError where it is taken."""
        server: Any = await asyncio.get_running_loop().create_server(  # uvloop's has its sockets in a list, no tuple
            self.protocol,
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=self.limits.head_s if tls else None,
            backlog=4096,
            reuse_port=reuse_port,
        )
        self._server = server
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def stop_listening(self) -> None:
        """Accept no further clients; those that are here are served."""
        if self._server is not None:
            self._server.close()

    def end(self) -> None:
        """The router ends, and with it all requests; those of the queue first, so that none of them is sent any more."""
        failure = Failure(Reason.SHUTTING_DOWN, "The router shuts down before this request is done.", retry_after_s=1)
        queued = [one for one in self.passages if one.exchange is not None and one.exchange.phase is Phase.QUEUED]
        for passage in [*queued, *self.passages]:
            passage.expire(failure)

    def close_idle(self) -> None:
        """Close the connections of clients that wait for nothing."""
        for client in [client for client in self.clients if client.idle]:
            client.close()

    def configure(self, adapter: Adapter, settings: Settings) -> None:
        """Use another configuration from the next request on."""
        if settings.bytes_per_token != self.settings.bytes_per_token:
            self.tokens.ratio.restart(settings.bytes_per_token)
        self.adapter, self.settings, self.limits = adapter, settings, settings.clients

    def add(self, replica: Replica) -> None:
        """A replica joined."""
        self.engines.add(replica)
        self.dispatcher.add(replica, self.clock())
        self.release()

    def remove(self, replica: Replica) -> None:
        """A replica left; what it still answers goes on."""
        self.dispatcher.remove(replica)
        self.engines.remove(replica)

    def refresh(self, replica: Replica) -> None:
        """The replica's state, limits or suspension was changed."""
        self.dispatcher.refresh(replica, self.clock())
        self.release()

    def died(self, replica: Replica, why: str) -> None:
        """The replica was found dead: what it holds is tried elsewhere, or ends with an error."""
        for passage in list(self.passages):
            if passage.exchange is not None and passage.exchange.replica is replica:
                passage.replica_died(why)

    def release(self) -> None:
        """Send what the queue holds to replicas that can take it."""
        self.carry_out(self.dispatcher.release(self.clock()))

    def tick(self) -> None:
        """Do what time brings; to be called about every 50 ms."""
        if self.sharing is not None:
            self.sharing.tick()
        now = self.clock()
        self.carry_out(self.dispatcher.tick(now))
        if now < self._deadlines_seen + DEADLINES_S:
            return
        self._deadlines_seen = now
        for client in [client for client in self.clients if client.deadline <= now]:
            client.expired()
        late = Failure(Reason.REQUEST_TIMEOUT, f"The request took longer than {self.settings.request_s:g} s.")
        for passage in [passage for passage in self.passages if passage.deadline <= now]:
            passage.expire(late)
        self.engines.prune(now)

    def names(self) -> list[str]:
        """Every model name that a request may use."""
        ready = [replica for replica in self.dispatcher.books.replicas.values() if replica.state is State.READY]
        return sorted({self.settings.model, *self.settings.aliases}.union(*(replica.models for replica in ready)))

    # --- for `client`

    def opened(self, client: Client) -> bool:
        """A client connected; return whether it may stay."""
        self.clients.add(client)
        return len(self.clients) <= self.limits.connections

    def closed(self, client: Client) -> None:
        """A client's connection is gone."""
        self.clients.discard(client)

    def examine(self, head: Head) -> Failure | None:
        """Refuse by its head a request that no engine would get."""
        path, method = head.path, head.method
        if method == b"POST" and path in self.adapter.paths:
            return None
        if self.adapter.administrative(path):
            return Failure(Reason.ADMIN_PATH, f"{path} administers an engine and is not routed.")
        allowed = self._allowed(path)
        if not allowed:
            return Failure(Reason.UNKNOWN_PATH, f"{path} is not routed.")
        if method not in allowed:
            return Failure(Reason.METHOD_NOT_ALLOWED, f"{path} takes {b', '.join(allowed).decode()}.")
        return None

    def handle(self, client: Client, head: Head, body: bytes) -> None:
        """Take a whole request."""
        self.telemetry.received += 1
        kind = self.adapter.path(head.path)
        if kind is None:
            self._answer_itself(client, head)
            return
        passage = Passage(self, client, head, kind, body)
        try:
            failure = passage.parse()
        except Exception:
            LOG.exception("a request for %s cannot be read", self.adapter.label(head.path))
            failure = Failure(Reason.INTERNAL, "The router cannot read this request, which is its fault.")
        if failure is None:
            passage.admit()
        else:
            passage.fail(failure)

    def refuse(self, client: Client, head: Head, failure: Failure) -> None:
        """Answer a request that was refused while it was read."""
        self.telemetry.received += 1
        self.answer(client, head, failure, self.request_id(head))

    # --- for `passage`

    def place(self, request: Request, passage: Passage) -> Exchange:
        """Hand a request to the dispatcher, which by then knows what peers did."""
        if self.sharing is not None:
            self.sharing.catch_up()
        exchange = self.dispatcher.arrive(request, passage.arrived, passage)
        if self.sharing is not None and exchange.phase is Phase.QUEUED:
            self.sharing.attend()
        return exchange

    def carry_out(self, exchanges: Iterable[Exchange]) -> None:
        """Do what the dispatcher decided; a fault of ours at one request is that one's alone."""
        for exchange in exchanges:
            passage: Passage = exchange.host
            try:
                self._carry_out(passage, exchange)
            except Exception:
                LOG.exception("request %s can be neither sent nor refused", passage.request_id)
                passage.spoil()

    def answer(self, client: Client, head: Head, failure: Failure, request_id: str) -> None:
        """Answer with an error in the form of the path's API."""
        kind = self.adapter.path(head.path)
        status, reason = failure.reason.status, failure.reason.header
        self.telemetry.failures[reason] += 1
        self.telemetry.answers[self.adapter.label(head.path), status] += 1
        lines = [framing.own_lines(request_id), b"x-halffull-reason: %b\r\n" % reason.encode(), framing.JSON]
        if failure.reason is Reason.METHOD_NOT_ALLOWED:
            lines.append(b"allow: %b\r\n" % b", ".join(self._allowed(head.path)))
        if failure.retry_after_s is not None:
            lines.append(b"retry-after: %d\r\n" % failure.retry_after_s)
        client.respond(status, lines, dialect.error_body(kind.dialect if kind else Dialect.OPENAI, failure))

    def knows(self, model: str) -> bool:
        """Whether a request may name this model."""
        settings = self.settings
        return model == settings.model or model in settings.aliases or model in self.names()

    def request_id(self, head: Head) -> str:
        """Return the client's own id if it is a sane one, else a new one."""
        given = head.fields.get(b"x-request-id")
        return given.decode() if given is not None and _REQUEST_ID.match(given) else next(self._ids)

    def adapter_of(self, model: str | None) -> str:
        """Return the LoRA adapter that a request's `model` names; empty: it names none."""
        if model is None or model == self.settings.model or model in self.settings.aliases:
            return ""
        replicas = self.dispatcher.books.replicas.values()
        return model if any(model in replica.adapters.served for replica in replicas) else ""

    def blocks(self, prompt: Prompt, body: bytes) -> tuple[bytes, ...]:
        """Return the hashes of a prompt's blocks; those of one adapter are never another's."""
        return blocks_of(body, self.block_key, self.adapter_of(prompt.model).encode())

    def lines(self, head: Head, request_id: str) -> bytes:
        """Return the headers of a request that its engine gets."""
        lines = head.passed_on(self.settings.priority.withheld)
        if self.settings.sessions and b"x-session-id" not in head.fields:
            lines += b"x-session-id: %b\r\n" % request_id.encode()
        return lines

    def remember(self, response_id: str, replica: str, *, share: bool = True) -> None:
        """Note which replica made a stored response, and tell others who have not heard of it."""
        if len(self.made_by) >= REMEMBERED_RESPONSES:
            del self.made_by[next(iter(self.made_by))]
        self.made_by[response_id] = replica
        if share and self.sharing is not None:
            self.sharing.remembered(response_id, replica)

    def ranked(self, kind: Path, request: Request, body: bytes) -> bytes:
        """Return the body that the engine gets: with the priority that the configuration says."""
        priority, dispatcher = self.settings.priority, self.dispatcher
        if priority is Priority.KEEP or kind.dialect not in RANKED:
            return body
        key_s = dispatcher.queue.key(request, dispatcher.at(self.clock())) + self._epoch
        return priority.applied(body, number(key_s, request.priority))

    def maker(self, response_id: str) -> str | None:
        """Return the replica that made a stored response, if known."""
        return self.made_by.get(response_id)

    # --- inside

    def _carry_out(self, passage: Passage, exchange: Exchange) -> None:
        if exchange.phase is Phase.CONNECTING and exchange.replica is not None:
            self.telemetry.decided(exchange, exchange.replica, self.clock())
            if self.placed is not None:
                self.placed(exchange.request, exchange.replica)
            passage.send(exchange, exchange.replica)
        elif exchange.failure is not None:
            passage.fail(exchange.failure)

    def _allowed(self, path: str) -> tuple[bytes, ...]:
        """Return the methods that a path takes; none: it is not routed."""
        if path in self.adapter.paths:
            return (b"POST",)
        if self.adapter.path(path) is not None:
            return (b"DELETE", b"GET", b"POST")
        return (b"GET", b"HEAD") if path in OWN_PATHS or path.startswith("/v1/models/") else ()

    def _answer_itself(self, client: Client, head: Head) -> None:
        request_id = self.request_id(head)
        wanted = unquote(head.path.removeprefix("/v1/models").removeprefix("/"))
        if head.path == "/health":
            body, lines = b"", [framing.own_lines(request_id)]
        elif head.path == "/v1/models":
            body, lines = dialect.models_body(self.names()), [framing.own_lines(request_id), framing.JSON]
        elif wanted in self.names():
            body, lines = dialect.model_body(wanted), [framing.own_lines(request_id), framing.JSON]
        else:
            self.answer(
                client,
                head,
                Failure(Reason.UNKNOWN_MODEL, f"The model '{wanted}' does not exist.", "model"),
                request_id,
            )
            return
        self.telemetry.answers[head.path if head.path in OWN_PATHS else "other", 200] += 1
        client.respond(200, lines, body)
