"""The goals: which schedulers are compared on which workloads, and what must come out. Called by `judge`.

One set of parameters for all workloads: every scheduler has its defaults, but for what a row says. `halffull` may have
ordering `deadline` where the share of requests in time is what counts (G2), and `sal` is told of prefixes where there are
any (G3): without, it would be easier to beat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from schedulers.cells import Cell, Played
from schedulers.intervals import Estimate, geometric, ratios

SHARED = {"count": 4, "shareSeconds": 0.005}
G1_WORKLOADS = ("convP", "codeP")
G2_WORKLOADS = ("conv", "convP", "convT", "convTP", "code", "codeP")
G2_TIGHT = ("convT", "convTP")
HALF_SLOW = (1.0, 0.5)


@dataclass(frozen=True)
class Goal:
    """One line of the table: a ratio of two schedulers' figures, or a figure itself, and its bound."""

    name: str
    says: str
    ours: Sequence[str]
    """names of cells, one for each workload"""
    theirs: Sequence[str] = ()
    figure: str = "ttft_p99"
    least: float | None = None
    """how many times better ours must be"""
    most: float | None = None
    """how many times theirs ours may be; without theirs: what it may be"""
    most_low: float | None = None
    """where the whole interval of ours over theirs must not lie above this"""

    def bound(self) -> str:
        """Return what must hold, in short."""
        if self.least is not None:
            return f">= {self.least:g}"
        return f"<= {self.most:g}" if self.most is not None else f"low <= {self.most_low:g}"

    def estimate(self, played: Mapping[str, Played]) -> Estimate | None:
        """Return the figure over all seeds; None where a workload was not played."""
        if any(name not in played for name in (*self.ours, *self.theirs)):
            return None
        ours = [played[name].values(self.figure) for name in self.ours]
        if not self.theirs:
            worst = max(max(values) for values in ours)
            return Estimate(worst, worst, worst)
        theirs = [played[name].values(self.figure) for name in self.theirs]
        better = self.least is not None and self.figure != "load"
        pairs = zip(theirs, ours, strict=True) if better else zip(ours, theirs, strict=True)
        return geometric([ratios(over, under) for over, under in pairs])

    def met(self, estimate: Estimate) -> bool:
        """Whether the goal is reached, by the mean."""
        if self.least is not None:
            return isfinite(estimate.mean) and estimate.mean >= self.least
        if self.most is not None:
            return estimate.mean <= self.most
        return estimate.low <= (self.most_low or 0.0)


def cells(*, quick: bool) -> list[Cell]:
    """Return every cell of the table; `quick`: with fewer requests."""
    return [*_g1(quick=quick), *_g2(quick=quick), *_g3(), *_g5(quick=quick)]


def goals() -> list[Goal]:
    """Return the lines of the table."""

    def g1(scheduler: str) -> list[str]:
        return [f"G1 {workload} {scheduler}" for workload in G1_WORKLOADS]

    def g2(scheduler: str, workloads: Sequence[str] = G2_WORKLOADS) -> list[str]:
        return [f"G2 {workload} {scheduler}" for workload in workloads]

    def g3(objective: str, scheduler: str) -> list[str]:
        return [f"G3 {objective} {scheduler}"]

    def g5(case: str, scheduler: str) -> list[str]:
        return [f"G5 {workload} {case} {scheduler}" for workload in G1_WORKLOADS]

    ours, four = g1("halffull"), "4 routers"
    lines = [
        Goal("G1", f"p99 TTFT, {other} over halffull", ours, g1(other), least=least)
        for other, least in (("round-robin", 3.3), ("least-requests", 1.8), ("weighted-scores", 2.2))
    ]
    lines += [
        Goal("G1", "p99 TTFT, halffull over sal", ours, g1("sal"), most_low=1.02),
        Goal("G1", f"p99 TTFT, sal with {four} over one", g1(f"sal, {four}"), g1("sal"), most=1.05),
        Goal("G1", f"p99 TTFT, halffull with {four} over one", g1(f"halffull, {four}"), ours, most=1.1),
        Goal("G1", f"p99 TTFT, halffull over sal, {four}", g1(f"halffull, {four}"), g1(f"sal, {four}"), most=1.0),
        *(
            Goal("G2", f"load with 95 % of TTFT < 2 s, halffull/deadline over {other}", g2("halffull/deadline"), g2(other), "load", least)
            for other, least in (("least-requests", 1.35), ("sal", 1.3))
        ),
        Goal("G2", "pre-emptions per request there, tight KV", g2("halffull/deadline", G2_TIGHT), (), "preemptions", most=0.001),
    ]  # fmt: skip
    for objective, bounds in (("p99 slowdown < 10", (2.3, 1.25, 1.08)), ("p90 TTFT < 2 s", (2.3, 2.0, 1.4))):
        lines += [
            Goal("G3", f"load with {objective}, halffull over {other}", g3(objective, "halffull"), g3(objective, other), "load", least)
            for other, least in zip(("weighted-scores", "kv-cost", "sal"), bounds, strict=True)
        ]  # fmt: skip
    lines += [
        Goal("G5", f"p99 TTFT, {policy} over the same told true speeds: {case}", g5(case, policy), g5(case, f"{policy}, told"), most=1.15)
        for case in ("half 2x slower", "one slows down")
        for policy in ("halffull", "sal")
    ]  # fmt: skip
    return lines


def _g1(*, quick: bool) -> list[Cell]:
    fleet: dict[str, Any] = {"load": 0.9, "engines": {"count": 16}, **({"requests": 12_000} if quick else {})}
    alone, four = {"routers": {"signalsSeconds": 0.05}}, {"routers": {"signalsSeconds": 0.05, **SHARED}}
    contenders = [
        *(
            (policy, policy, alone)
            for policy in ("round-robin", "least-requests", "weighted-scores", "sal", "halffull")
        ),
        *((f"{policy}, 4 routers", policy, four) for policy in ("sal", "halffull")),
    ]
    return [
        Cell(f"G1 {workload} {name}", {"workload": workload, **fleet, **routers}, {"policy": policy})
        for workload in G1_WORKLOADS
        for name, policy, routers in contenders
    ]


def _g2(*, quick: bool) -> list[Cell]:
    deadline = {"policy": "halffull", "ordering": "deadline", "slo": {"ttftSeconds": 2}}
    schedulers = {
        "least-requests": {"policy": "least-requests"},
        "sal": {"policy": "sal"},
        "halffull/deadline": deadline,
    }
    fields = {"engines": {"count": 8}, "objective": {"ttftSeconds": 2, "share": 0.95}, **_requests(quick=quick)}
    return [
        Cell(f"G2 {workload} {name}", {"workload": workload, **fields}, scheduling, search=True)
        for workload in G2_WORKLOADS
        for name, scheduling in schedulers.items()
    ]


def _g3() -> list[Cell]:
    schedulers: dict[str, dict[str, Any]] = {
        "weighted-scores": {"policy": "weighted-scores"},
        "kv-cost": {"policy": "kv-cost"},
        "sal": {"policy": "sal", "parameters": {"sal": {"prefixes": True}}},
        "halffull": {"policy": "halffull"},
    }
    objectives = {
        "p99 slowdown < 10": {"slowdown": 10, "share": 0.99},
        "p90 TTFT < 2 s": {"ttftSeconds": 2, "share": 0.9},
    }
    return [
        Cell(
            f"G3 {says} {name}",
            {"workload": "moonS", "engines": {"count": 8}, "objective": objective},
            scheduling,
            search=True,
        )
        for says, objective in objectives.items()
        for name, scheduling in schedulers.items()
    ]


def _g5(*, quick: bool) -> list[Cell]:
    """Loads are 0.9 of what the slowed fleet can do; the one that slows down does so after a third of the run."""
    requests = _requests(quick=quick)
    slows = {"replica": 0, "factor": 2.0}
    cases: dict[str, tuple[float, dict[str, Any]]] = {
        "half 2x slower": (0.9 * 0.75, {"count": 8, "speeds": HALF_SLOW}),
        "one slows down": (
            0.9 * 7.5 / 8,
            {"count": 8, "slowdowns": [{**slows, "fromSeconds": 60.0 if quick else 120.0}]},
        ),
    }
    return [
        Cell(
            f"G5 {workload} {case} {policy}{', told' if told else ''}",
            {"workload": workload, "load": load, "engines": {**engines, "speedsTold": told}, **requests},
            {"policy": policy},
        )
        for workload in G1_WORKLOADS
        for case, (load, engines) in cases.items()
        for policy in ("halffull", "sal")
        for told in (False, True)
    ]


def _requests(*, quick: bool) -> dict[str, int]:
    return {"requests": 6000} if quick else {}
