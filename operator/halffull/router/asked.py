"""What a client asks for: of head and body, what scheduling and the engine need. `passage` keeps one per request."""

from typing import TYPE_CHECKING

from halffull.core.errors import Failure, Reason
from halffull.core.values import Request
from halffull.engines.base import STORED, Path
from halffull.router.answers import resume
from halffull.router.answers.resume import Continuation
from halffull.router.http.head import Head
from halffull.router.requests import prompt
from halffull.router.requests.blocks import BLOCK_BYTES

if TYPE_CHECKING:
    from halffull.router.proxy import Proxy


class Asked:
    """One request as its client sent it, and as an engine gets it."""

    __slots__ = ("_kind", "_priority", "body", "continuation", "head", "lines", "prompt")

    def __init__(self, head: Head, kind: Path, body: bytes) -> None:
        self.head = head
        self._kind = kind
        self.body = body
        """for the engine, but for its priority"""
        self.lines = b""
        """headers for the engine"""
        self._priority = 0
        self.prompt = prompt.Prompt()
        self.continuation: Continuation | None = None
        """how its answer goes on where it loses its replica; None: it does not"""

    def read(self, proxy: "Proxy", request_id: str) -> Failure | None:
        """Read head and body; return why the request is refused, if it is."""
        head = self.head
        priority = prompt.priority(head.fields)
        if isinstance(priority, Failure):
            return priority
        self._priority = priority
        json = (head.fields.get(b"content-type") or b"json").lower().find(b"json") >= 0
        if head.method == b"POST" and json and (self.body or self._kind.resendable):  # cancelling needs no body
            found = prompt.read(self.body)
            if isinstance(found, Failure):
                return found
            self.prompt = found
            if found.model is not None and not proxy.knows(found.model):
                return Failure(Reason.UNKNOWN_MODEL, f"The model '{found.model}' does not exist.", "model")
            if found.model in proxy.settings.aliases:
                self.body = prompt.with_model(self.body, proxy.settings.model)
            if found.stream and proxy.settings.resume and head.fields.get(b"x-halffull-resume") != b"never":
                self.continuation, self.body = resume.continuation(self._kind, self.body, proxy.allowance)
        self.lines = proxy.lines(head, request_id)
        return None

    def request(self, proxy: "Proxy", request_id: str, arrived: float) -> Request:
        """Return what the dispatcher is told of it."""
        read, head = self.prompt, self.head
        return Request(
            id=request_id,
            arrived=arrived,
            prompt_tokens=proxy.tokens.estimate(read, self.body),
            stream=read.stream and self._kind.streams,
            max_tokens=read.max_tokens,
            body_bytes=len(self.body),
            resendable=self._kind.resendable,
            priority=self._priority,
            caller=prompt.caller(head.fields, read.user),
            session=prompt.session(head.fields, read.user),
            adapter=proxy.adapter_of(read.model),
            blocks=proxy.blocks(read, self.body) if proxy.dispatcher.policy.reads_prefixes else (),
            block_tokens=max(1, round(BLOCK_BYTES / proxy.tokens.ratio.value)),
            pinned=proxy.maker(read.continues or head.path.removeprefix(STORED).partition("/")[0]),
        )
