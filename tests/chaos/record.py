"""What a scenario shows: counts of its questions, its goals, and the table of all. Used by `__main__` and the scenarios."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import aiohttp

from chaos.crowd import Crowd, Outcome
from chaos.stage import page


@dataclass(frozen=True)
class Lengths:
    """How long scenarios are that may be played for longer."""

    requests: int = 20_000
    """of the soak"""
    rate: float = 150.0
    """of the soak, requests per second"""
    away_s: float = 80.0
    """for which the API server does not answer"""


@dataclass
class Record:
    """One scenario's."""

    name: str
    fault: str
    """what happens, in a few words"""
    short: bool = False
    """as short as it tells something"""
    lengths: Lengths = Lengths()
    outcomes: list[Outcome] = field(default_factory=list)
    sent: int = 0
    moved: int = 0
    continued: int = 0
    goals: list[tuple[str, bool]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def goal(self, what: str, holds: object) -> None:
        """Note what was to be reached, and whether it was."""
        self.goals.append((what, bool(holds)))

    def take(self, crowd: Crowd) -> list[Outcome]:
        """Take what became of a crowd's questions, once it has left."""
        self.outcomes += crowd.outcomes
        self.sent += crowd.sent
        return crowd.outcomes

    async def read(self, *admin_urls: str) -> None:
        """Add what routers say of moved and continued requests; one that is gone says nothing."""
        for url in admin_urls:
            with suppress(aiohttp.ClientError, TimeoutError):
                requests = (await page(url))["requests"]
                self.moved += sum(requests["moved"].values())
                self.continued += requests["continued"]

    def nothing_failed(self) -> None:
        """The goal of nearly all: every question was answered, or its stream could not go on and said so."""
        self.goal("0 failed", self.outcomes and len(self.outcomes) == self.sent and not self.failed)

    @property
    def failed(self) -> Counter[str]:
        """Reasons of questions that have no complete answer, those apart that could not go on."""
        return Counter(outcome.failure for outcome in self.outcomes if outcome.failure and not outcome.cut)

    @property
    def good(self) -> bool:
        return bool(self.goals) and all(holds for _, holds in self.goals)

    def document(self) -> dict[str, Any]:
        """The record as JSON."""
        return {
            "scenario": self.name,
            "fault": self.fault,
            "sent": self.sent,
            "answered": sum(not outcome.failure for outcome in self.outcomes),
            "moved": self.moved,
            "continued": self.continued,
            "cut": sum(outcome.cut for outcome in self.outcomes),
            "failed": dict(self.failed),
            "longestGapSeconds": round(max((outcome.gap_s for outcome in self.outcomes), default=0.0), 3),
            "ttftP99Seconds": p99(self.outcomes),
            "figures": self.figures,
            "goals": [{"goal": what, "reached": holds} for what, holds in self.goals],
        }


def p99(outcomes: Iterable[Outcome]) -> float | None:
    """99th percentile of the times to the first byte (nearest rank); None where there was none."""
    times = sorted(outcome.ttft_s for outcome in outcomes if outcome.ttft_s is not None and not outcome.failure)
    return round(times[ceil(0.99 * len(times)) - 1], 3) if times else None


COLUMNS: dict[str, Callable[[dict[str, Any]], object]] = {
    "scenario": lambda d: d["scenario"],
    "sent": lambda d: d["sent"],
    "answered": lambda d: d["answered"],
    "moved": lambda d: d["moved"],
    "continued": lambda d: d["continued"],
    "cut": lambda d: d["cut"],
    "failed": lambda d: ", ".join(f"{n} {reason}" for reason, n in d["failed"].items()) or 0,
    "longest gap": lambda d: f"{d['longestGapSeconds']:.2f} s",
    "goals": lambda d: "reached" if all(g["reached"] for g in d["goals"]) else "MISSED",
}


def table(documents: list[dict[str, Any]]) -> str:
    """Return all records as a table in Markdown."""
    rows = [list(COLUMNS), *([str(cell(d)) for cell in COLUMNS.values()] for d in documents)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    missed = [f"{d['scenario']}: missed: {g['goal']}" for d in documents for g in d["goals"] if not g["reached"]]
    figures = [f"{d['scenario']}: {json.dumps(d['figures'])}" for d in documents if d["figures"]]
    return "\n".join([*lines, *figures, *missed])
