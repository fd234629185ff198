"""The last routing decisions with what they were based on, for the admin port's `/decisions`. Never a prompt.

The data path records each choice; `admin` shows them.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from halffull.core.books import Replica
from halffull.core.exchange import Exchange

KEPT = 256
CANDIDATES_SHOWN = 16
"""figures are copied at each decision, so a large fleet shows only its first candidates"""

_Figures = tuple[str, int, int, int, int]
_Row = tuple[float, str, str, str, float, int, int, list[_Figures]]


class Decisions:
    """A ring of the last decisions."""

    def __init__(self) -> None:
        self._rows: deque[_Row] = deque(maxlen=KEPT)
        self.made = 0
        """decisions since the start"""

    def record(self, exchange: Exchange, policy: str, candidates: Sequence[Replica], wall: float, now: float) -> None:
        """Note that `policy` gave the exchange to its replica. `wall` is Unix time, `now` the router's clock.

        To be called after the choice: the figures of the chosen replica include the request itself.
        """
        replica, request = exchange.replica, exchange.request
        self.made += 1
        self._rows.append(
            (
                wall,
                request.id,
                replica.name if replica else "",
                policy,
                now - request.arrived,
                request.prompt_tokens,
                exchange.attempts,
                [
                    (r.name, r.in_flight, r.prefill_tokens, r.waiting_prompt_tokens, r.decode_tokens)
                    for r in candidates[:CANDIDATES_SHOWN]
                ],
            )
        )

    def latest(self, count: int = KEPT) -> list[dict[str, Any]]:
        """Return the last `count` decisions, the newest first."""
        rows = list(self._rows)[-count:] if count > 0 else []
        return [_shown(row) for row in reversed(rows)]


def _shown(row: _Row) -> dict[str, Any]:
    wall, request, replica, policy, queued_s, prompt_tokens, attempt, candidates = row
    return {
        "time": round(wall, 3),
        "request": request,
        "replica": replica,
        "policy": policy,
        "queueSeconds": round(queued_s, 4),
        "promptTokens": prompt_tokens,
        "attempt": attempt,
        "candidates": [
            {"name": name, "inFlight": n, "prefillTokens": q, "waitingPromptTokens": qk, "decodeTokens": kd}
            for name, n, q, qk, kd in candidates
        ],
    }
