"""What the project knows of an engine: one `Adapter` per engine type, pure data and pure functions.

Callers: the router (which paths to forward, when an answer has not started, reading signals), the operator (container
defaults, limits from arguments, reading signals), `halffull up` (the same). An adapter does no I/O.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from halffull.core.values import Signals
from halffull.engines.arguments import Flag, flag_number, with_flags


class Dialect(StrEnum):
    """The API whose errors, events and stream end a path speaks."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    NATIVE = "native"
    """the engine's own: errors take OpenAI's form, a stream ends with its connection's body"""


STREAM_ENDS: Mapping[Dialect, tuple[bytes, ...]] = {
    Dialect.OPENAI: (b"[DONE]",),
    Dialect.RESPONSES: (b"response.completed", b"response.incomplete", b"response.failed", b"error"),
    Dialect.ANTHROPIC: (b"message_stop", b"error"),
    Dialect.NATIVE: (),
}
"""What closes a stream of server-sent events: OpenAI's data `[DONE]`, else the name of the last event: an error is, too."""


STORED = "/v1/responses/"
"""what begins the path of a stored response; its id follows, then perhaps what is asked of it (`/cancel`)"""
SEAMLESS = frozenset(
    {
        "model", "stream", "stream_options", "max_tokens", "min_tokens", "ignore_eos", "temperature", "top_p", "top_k",
        "min_p", "seed", "stop", "user", "n", "priority",
    }
)  # fmt: skip
"""fields of requests whose meaning does not change where a text goes on elsewhere"""
DEAD = ("EngineCore encountered an issue", "cannot schedule new futures after")
"""with these an error begins by which a server in Python, vLLM's above all, says that its engine has died or that it ends"""


@dataclass(frozen=True, slots=True)
class Continuing:
    """How an engine goes on with a text that another replica began."""

    by: Literal["messages", "prompt"]
    """a last assistant message to be continued (`continue_final_message`), or the prompt followed by the text"""
    fields: frozenset[str]
    """of a request; one with any other field is not continued, since what it asks for may not survive the seam"""
    usage: bool = False
    """whether it tells usage in each event where `stream_options` ask for it"""
    limit: int | None = None
    """tokens after which it ends an answer where the request has no `max_tokens`; None: when the context is full"""


@dataclass(frozen=True, slots=True)
class Path:
    """One inference path."""

    dialect: Dialect = Dialect.OPENAI
    streams: bool = True
    """whether it can answer with a stream of server-sent events"""
    resendable: bool = True
    """whether a request that has not started may be sent again, to another replica"""
    continuing: Continuing | None = None
    """how a stream that has started goes on at another replica; None: it does not"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine takes at once."""

    max_sequences: int
    """requests in its running batch"""
    max_batched_tokens: int
    """tokens in one step"""


@dataclass(frozen=True, slots=True)
class Container:
    """How the operator runs the engine where the user gives a template."""

    command: tuple[str, ...] = ()
    """empty: the image's own entry point"""
    flags: tuple[Flag, ...] = ()
    """arguments added where the user's do not have them"""
    health_path: str = "/health"
    """for the startup and readiness probes"""
    pre_stop_seconds: int = 60
    """pause between leaving the endpoints and SIGTERM: long for an engine that drops its requests on SIGTERM"""

    def args(self, port: int, model: str, user_args: Sequence[str]) -> list[str]:
        """Return the user's arguments followed by those of `flags` that they lack."""
        return with_flags(user_args, self.flags, {"port": str(port), "model": model})


@dataclass(frozen=True, slots=True)
class Adapter:
    """One engine type."""

    type: str
    """its name in `spec.engine.type`"""
    signals: Callable[[bytes], Signals]
    """reads one exposition; unknown is None, never 0; never raises"""
    paths: Mapping[str, Path]
    """inference paths, forwarded; all else is 404 or, where in `admin_paths`, 403"""
    admin_paths: frozenset[str]
    """paths that change the engine or show and touch other callers' requests; see `administrative`"""
    defaults: Limits
    """assumed where neither the resource nor the arguments say it"""
    container: Container
    ranks: bool = False
    """whether it can serve what waits by the field `priority` of requests, lower first (an option of its own)"""
    kv_events: bool = False
    """whether it can publish what its prefix cache holds, with the session of each request (an option of its own)"""
    metrics_path: str = "/metrics"
    sequence_flags: tuple[str, ...] = ()
    """arguments that set `max_sequences`"""
    batched_token_flags: tuple[str, ...] = ()
    """arguments that set `max_batched_tokens`"""
    prefixes: Mapping[str, Path] = field(default_factory=dict)
    """inference paths below which an id stands, as `/v1/responses/`"""

    def path(self, path: str) -> Path | None:
        """Return the inference path that a request's path (without query) names; None: not one."""
        found = self.paths.get(path)
        if found is None:
            found = next((kind for prefix, kind in self.prefixes.items() if path.startswith(prefix)), None)
        return found

    def administrative(self, path: str) -> bool:
        """Whether a request's path is one of `admin_paths` or lies below one (`/slots/0`)."""
        return path in self.admin_paths or any(path.startswith(admin + "/") for admin in self.admin_paths)

    def label(self, path: str) -> str:
        """Return the path, or the prefix that it falls under: one of few, fit for a metric's label; `other` where it is neither."""
        if path in self.paths:
            return path
        return next((prefix for prefix in self.prefixes if path.startswith(prefix)), "other")

    def limits(self, args: Sequence[str]) -> tuple[int | None, int | None]:
        """Return (max_sequences, max_batched_tokens) as the container's command and arguments set them.

        Of several flags that bound the same the smallest counts.
        """
        return _least(args, self.sequence_flags), _least(args, self.batched_token_flags)


def _least(args: Sequence[str], names: Sequence[str]) -> int | None:
    set_by = (flag_number(args, (name,)) for name in names)
    return min((number for number in set_by if number is not None), default=None)


def busy(event: bytes) -> bool:
    """Whether the data of a stream's first event says that the engine took no request (an answer 200 may say so).

    vLLM and SGLang send `{"error": {..., "code": 503}}`, SGLang's older form is flat, TGI names `overloaded`,
    Anthropic's form `overloaded_error`.
    """
    if event.find(b"error") < 0:
        return False
    document = _json_object(event)
    error = document.get("error")
    fields = error if isinstance(error, dict) else document
    if document.get("object") != "error" and "error" not in document:
        return False
    return (
        str(fields.get("code")) in {"429", "503"}
        or document.get("error_type") == "overloaded"
        or fields.get("type") == "overloaded_error"
    )


def aborted(event: bytes) -> bool:
    """Whether an event's or a plain answer's data says that the engine gave a request up (`finish_reason: abort`)."""
    if event.find(b'"abort"') < 0:
        return False
    choices = _json_object(event).get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") == "abort" for choice in choices
    )


def dead(data: bytes) -> bool:
    """Whether an answer's or an event's data says that the engine has died, or shuts down and takes no request."""
    if data.find(b'"error"') < 0:
        return False
    document = _json_object(data)
    error = document.get("error", document)
    return isinstance(error, dict) and str(error.get("message")).startswith(DEAD)


def _json_object(data: bytes) -> dict[str, object]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
