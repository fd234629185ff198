"""The replicas in a ModelDeployment's status: state, figures, weight; pure. Called by `status`."""

from collections.abc import Mapping
from math import floor, log10
from statistics import median
from typing import Any, Literal

from halffull.api.router_config import Balance, ReplicaBalance
from halffull.api.status import MAX_REPLICAS, ReplicaCounts, ReplicaStatus
from halffull.controller.endpoints import Endpoint
from halffull.controller.facts import Facts
from halffull.core.balance import Mark
from halffull.core.books import PREFILL_RATE

StateName = Literal["Ready", "Draining", "Suspect", "Down"]
_WORST_FIRST: Mapping[str, int] = {"Suspect": 0, "Down": 1, "Draining": 2, "Ready": 3}


def replicas(facts: Facts, balance: Balance) -> tuple[ReplicaStatus, ...]:
    """Return all replicas, the worst first: not Ready ones, then those of the lowest weight."""
    rows = [_replica(endpoint, facts, balance.replicas.get(endpoint.name)) for endpoint in facts.engines]
    return tuple(sorted(rows, key=lambda row: (_WORST_FIRST[row.state], row.weight, row.name)))


def listed(rows: tuple[ReplicaStatus, ...]) -> tuple[ReplicaStatus, ...]:
    """Return those that a status lists, in an order that small changes leave alone."""
    return (
        tuple(sorted(rows[:MAX_REPLICAS], key=lambda row: row.name))
        if len(rows) <= MAX_REPLICAS
        else rows[:MAX_REPLICAS]
    )


def counts(rows: tuple[ReplicaStatus, ...], pods: int | None) -> ReplicaCounts:
    """Return replicas by state; pods that have no address yet count as down."""
    states = [row.state for row in rows]
    total = max(len(states), pods or 0)
    return ReplicaCounts(
        total=total,
        ready=states.count("Ready"),
        draining=states.count("Draining"),
        suspect=states.count("Suspect"),
        down=states.count("Down") + total - len(states),
    )


def _replica(endpoint: Endpoint, facts: Facts, balance: ReplicaBalance | None) -> ReplicaStatus:
    said = facts.seen_by_routers(endpoint.name)
    signals = facts.signals.get(endpoint.name)
    speed = facts.speeds.get(endpoint.name)
    entry = balance or ReplicaBalance()
    return ReplicaStatus(
        name=endpoint.name,
        state=_state(endpoint, said, answers=signals is not None),
        running=_count(signals.running if signals else None),
        waiting=_count(signals.waiting if signals else None),
        kv_usage_percent=percent(signals.kv_usage if signals else None),
        prefill_tokens_per_second=_prefill_rate(said),
        pressure=None if (pressure := facts.pressures.get(endpoint.name)) is None else two_digits(pressure),
        speed=speed,
        weight=entry.weight,
        suspended=entry.suspended,
        signals=facts.marks.get(endpoint.name, Mark.NONE).value,
        reason=entry.reason or None,
    )


def _state(endpoint: Endpoint, said: list[Mapping[str, Any]], *, answers: bool) -> StateName:
    """Return the state: of the pod first, then as its routers find it. All must agree that a ready pod is down.

    A fixed address of which no router has told is ready if it `answers` us.
    """
    if endpoint.terminating:
        return "Draining"
    if endpoint.ready is False:
        return "Down"
    states = {entry.get("state") for entry in said}
    if states == {"Down"} or (not states and endpoint.ready is None and not answers):
        return "Down"
    if states & {"Down", "Suspect"}:
        return "Suspect"
    return "Ready"


def _prefill_rate(said: list[Mapping[str, Any]]) -> float | None:
    """Return the median of what routers learned, two digits; None where none has learned anything."""
    rates = [entry.get("prefillTokensPerSecond") for entry in said]
    learned = [float(rate) for rate in rates if rate is not None and rate != PREFILL_RATE]
    return two_digits(median(learned)) if learned else None


def _count(value: float | None) -> int | None:
    return None if value is None or value < 0 else int(two_digits(value))


def two_digits(value: float) -> float:
    """Return `value` rounded to two significant digits, so that a status does not change with every request."""
    return round(value, 1 - floor(log10(abs(value)))) if value else 0.0


def percent(fraction: float | None) -> int | None:
    """Return a fraction in percent, to the nearest 5."""
    return None if fraction is None else min(100, max(0, 5 * round(20 * fraction)))
