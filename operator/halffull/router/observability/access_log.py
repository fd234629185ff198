"""The access log: one JSON line on standard output for a sampled share of finished requests. Off unless configured.

`passage` tells of each end, `applier` sets the share. A line holds no text of prompts or answers, and of who asked only a hash.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime

from halffull.core.contracts import Rng
from halffull.router.observability.telemetry import Ended


class AccessLog:
    """Writes lines."""

    def __init__(self, write: Callable[[str], object], wall_clock: Callable[[], float], rng: Rng) -> None:
        """`wall_clock` returns seconds since the epoch; `write` takes a line with its end."""
        self._write = write
        self._wall_clock = wall_clock
        self._rng = rng
        self.share = 0.0
        """of requests that are written, 0 to 1"""

    def __call__(self, ended: Ended) -> None:
        """A request has ended."""
        if self.share <= 0 or self._rng.random() >= self.share:
            return
        moment = datetime.fromtimestamp(self._wall_clock(), UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "requestId": ended.request_id,
            "method": ended.method,
            "path": ended.path,
            "status": ended.status,
            "reason": ended.reason or None,
            "replica": ended.replica or None,
            "attempts": ended.attempts,
            "promptTokens": ended.prompt_tokens,
            "generatedTokens": ended.generated_tokens,
            "caller": ended.caller or None,
            "durationSeconds": round(ended.ended_at - ended.arrived, 6),
            "sentAfterSeconds": _after(ended.arrived, ended.sent_at),
            "ttftSeconds": _after(ended.arrived, ended.started_at),
        }
        self._write(json.dumps(line, separators=(",", ":")) + "\n")


def _after(start: float, moment: float | None) -> float | None:
    return None if moment is None else round(moment - start, 6)
