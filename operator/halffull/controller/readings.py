"""From documents to what the rebalancer takes, and back; pure. Called by the operator's `rounds` and by `halffull up`."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from halffull.api.router_config import Balance
from halffull.api.scheduling import Scheduling
from halffull.core import balance
from halffull.core.books import PREFILL_RATE
from halffull.core.values import Signals

SHORTEST_STALE_S = 15.0


def balance_settings(scheduling: Scheduling) -> balance.Settings:
    """Return how evidence becomes weights and suspensions."""
    return balance.Settings(
        stale_after_s=max(SHORTEST_STALE_S, 3 * scheduling.rebalance.interval_seconds),
        suspend_liars=scheduling.signals.when_stale == "exclude",
    )


def carried(published: Balance) -> balance.Fleet:
    """Return the rebalancer's state after a restart: what is published."""
    entries = published.replicas
    return balance.carried(
        {name: entry.weight for name, entry in entries.items()},
        {name: entry.reason or "suspended" for name, entry in entries.items() if entry.suspended},
    )


def reading(signals: Signals | None, replica: str, routers: Sequence[Mapping[str, Any] | None]) -> balance.Reading:
    """Return what is known of a replica: its signals, and what the `/status` of each router says; None: it did not answer."""
    rows = [row for document in routers for row in (document or {}).get("replicas", ()) if row.get("name") == replica]
    rates = [float(row.get("prefillTokensPerSecond") or PREFILL_RATE) for row in rows]
    learned = [rate for rate in rates if rate != PREFILL_RATE]
    rate = median(learned) if learned else None
    whole = bool(rows) and None not in routers
    return balance.Reading(
        signals,
        in_flight=sum(int(row.get("inFlight") or 0) for row in rows) if whole else None,
        prefill_rate=rate,
        prefill_s=sum(int(row.get("prefillTokens") or 0) for row in rows) / (rate or PREFILL_RATE),
        seen_tokens=sum(int(row.get("seenTokens") or 0) for row in rows) if whole else None,
        down=bool(rows) and all(row.get("state") == "Down" for row in rows),
    )
