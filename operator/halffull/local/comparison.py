"""What a policy edit changed: the requests before it next to those after it. Called by `demo`; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from halffull.local.client import Outcome
from halffull.local.report import PERCENTILES, Slo, report

SLO = Slo(ttft_s=0.5, tpot_s=0.1)


@dataclass(frozen=True, slots=True)
class Windows:
    """Which requests count, by when they were due; seconds of one clock."""

    before: tuple[float, float]
    after: tuple[float, float]


def compare(outcomes: Sequence[Outcome], windows: Windows, slow: str) -> dict[str, Any]:
    """Figures of both windows as a JSON document; `slow` names the slower replica."""
    return {
        name: _figures([outcome for outcome in outcomes if start <= outcome.due_s < end], end - start, slow)
        for name, (start, end) in (("before", windows.before), ("after", windows.after))
    }


def _figures(outcomes: Sequence[Outcome], seconds: float, slow: str) -> dict[str, Any]:
    figures = report(outcomes, SLO, seconds)
    there = sum(outcome.replica == slow for outcome in outcomes)
    return figures | {"slowReplicaShare": round(there / len(outcomes), 4) if outcomes else 0.0}


def lines(figures: dict[str, Any], before: str, after: str) -> list[str]:
    """The two columns for people."""
    left, right = figures["before"], figures["after"]
    if not all(column["ttftSeconds"] and column["tpotSeconds"] for column in (left, right)):
        return ["too few requests to compare: give it more --seconds"]
    slo = left["goodput"]["slo"]
    good = f"TTFT <= {slo['ttftSeconds']:g} s and TPOT <= {slo['tpotSeconds'] * 1000:g} ms"
    rows = [
        ("", before, after, ""),
        ("requests", str(left["requests"]["sent"]), str(right["requests"]["sent"]), ""),
        *(_row(f"TTFT {name}", left["ttftSeconds"][name], right["ttftSeconds"][name]) for name in PERCENTILES),
        *(_row(f"TPOT {name}", left["tpotSeconds"][name], right["tpotSeconds"][name]) for name in ("p50", "p99")),
        (good, f"{left['goodput']['fraction']:.1%}", f"{right['goodput']['fraction']:.1%}", ""),
        ("sent to the slower engine", f"{left['slowReplicaShare']:.0%}", f"{right['slowReplicaShare']:.0%}", ""),
        ("failed", _failed(left), _failed(right), ""),
    ]
    width = max(len(name) for name, *_ in rows)
    return [f"{name:<{width}}  {one:>12}  {other:>12}  {change}".rstrip() for name, one, other, change in rows]


def _failed(column: dict[str, Any]) -> str:
    return str(sum(column["requests"]["failed"].values()))


def _row(name: str, before: float, after: float) -> tuple[str, str, str, str]:
    ratio = before / after
    change = f"{ratio:.1f}x shorter" if ratio >= 1.05 else f"{1 / ratio:.1f}x longer" if ratio <= 0.95 else "same"
    return name, seconds(before), seconds(after), change


def seconds(value: float) -> str:
    """A time for people."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"
