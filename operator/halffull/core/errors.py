"""Why a request failed: one table of reasons with their HTTP status. `router.answers.dialect` puts them in each API's form.

The reason is the value of the header `x-halffull-reason` and of the label `reason` of metrics.
"""

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Why halffull itself answered with an error: (header value, HTTP status)."""

    BAD_REQUEST = ("bad_request", 400)
    INVALID_BODY = ("invalid_body", 400)
    ADMIN_PATH = ("admin_path", 403)
    UNKNOWN_PATH = ("unknown_path", 404)
    UNKNOWN_MODEL = ("unknown_model", 404)
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405)
    SLOW_CLIENT = ("slow_client", 408)
    BODY_TOO_LARGE = ("body_too_large", 413)
    EXPECTATION_FAILED = ("expectation_failed", 417)
    QUEUE_FULL = ("queue_full", 429)
    HEAD_TOO_LARGE = ("head_too_large", 431)
    INTERNAL = ("internal", 500)
    ENGINE_BROKEN = ("engine_broken", 502)
    ENGINE_SILENT = ("engine_silent", 502)
    ENGINE_UNREACHABLE = ("engine_unreachable", 502)
    ENGINE_BUSY = ("engine_busy", 503)
    NO_CONNECTION = ("no_connection", 503)
    NO_REPLICA = ("no_replica", 503)
    SHUTTING_DOWN = ("shutting_down", 503)
    QUEUE_TIMEOUT = ("queue_timeout", 504)
    REQUEST_TIMEOUT = ("request_timeout", 504)

    @property
    def header(self) -> str:
        """The value of `x-halffull-reason`."""
        return self.value[0]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Failure:
    """The error that answers a request."""

    reason: Reason
    message: str
    """a sentence for the client; never holds a prompt"""
    param: str | None = None
    """the field of the request at fault"""
    retry_after_s: int | None = None
    """whole seconds after which trying again makes sense"""
