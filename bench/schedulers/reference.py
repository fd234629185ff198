"""Whether the simulator agrees with an independent one of the same engine model: its figures beside ours. See docs/simulator.md.

The other one's figures are those of the study that the project rests on: three seeds, mean and half the range of the p99 of
TTFT, mean and range of round robin's p99 over the policy's. Two figures agree where their ranges meet.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from halffull.api.scenario import Scenario
from halffull.sim.comparison import Summary, compare
from halffull.sim.setting import setting
from halffull.sim.simulate import contender
from schedulers import pages

SEEDS = 3
TABLES = Path(__file__).parent / "reference.json"


class Span(NamedTuple):
    """A mean and the range that it comes from."""

    mean: float
    low: float
    high: float

    def meets(self, other: "Span") -> bool:
        """Whether the ranges have a value in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Row:
    """One policy in one table."""

    policy: str
    p50: tuple[float, float]
    """theirs, ours; seconds"""
    p99: tuple[Span, Span]
    ratio: tuple[Span, Span]
    """round robin's p99 over this one's, by seed"""

    @property
    def agrees(self) -> bool:
        """Whether both figures do."""
        return self.p99[0].meets(self.p99[1]) and self.ratio[0].meets(self.ratio[1])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traces", metavar="DIR", help="directory with the Azure traces (absent: the samples)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables into FILE, between their marks")


def run(arguments: argparse.Namespace) -> int:
    tables = json.loads(TABLES.read_text())
    found: dict[str, list[Row]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("playing", total=sum(SEEDS * len(table["policies"]) for table in tables.values()))
        for name, table in tables.items():
            names = list(table["policies"])
            fields = {**table["scenario"], "seeds": SEEDS, "baseline": "round-robin"}
            fields |= {"trace": arguments.traces, "contenders": [contender(policy) for policy in names]}
            plan = setting(Scenario.model_validate(fields))
            summaries = compare(plan, max(1, arguments.jobs), lambda _: progress.advance(task))
            found[name] = [row(table["policies"][one.contender], one) for one in summaries]
    text = "\n".join(markdown(name, rows) for name, rows in found.items())
    print(text)
    if arguments.markdown is not None:
        pages.write(arguments.markdown, "reference", text)
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps({name: [asdict(one) for one in rows] for name, rows in found.items()}, indent=1) + "\n"
        )
    return 0


def row(theirs: Sequence[float], ours: Summary) -> Row:
    """Compare; `theirs`: p50, p99, half its range, ratio, its least and its greatest value."""
    p50, p99, half, mean, low, high = theirs
    own, spread, ratio = ours.mean("ttft_p99"), ours.half_range("ttft_p99"), ours.ratio
    return Row(
        ours.contender,
        (p50, ours.mean("ttft_p50")),
        (Span(p99, p99 - half, p99 + half), Span(own, own - spread, own + spread)),
        (Span(mean, low, high), Span(ratio.mean, ratio.low, ratio.high)),
    )


def markdown(name: str, rows: Sequence[Row]) -> str:
    """Return one table."""
    agree = sum(one.agrees for one in rows)
    lines = []
    for one in rows:
        p99 = [f"{span.mean:.2f}±{(span.high - span.low) / 2:.2f}" for span in one.p99]
        ratio = [f"{span.mean:.2f} [{span.low:.2f}-{span.high:.2f}]" for span in one.ratio]
        p50 = [f"{seconds:.3f}" for seconds in one.p50]
        lines.append((f"`{one.policy}`", *p50, *p99, *ratio, "" if one.agrees else "apart"))
    head = ("policy", "p50", "ours", "p99", "ours", "round-robin/x", "ours", "")
    return f"{name}: {agree} of {len(rows)} agree\n\n{pages.rows(head, lines)}"
