"""Whether the goals hold, by the simulator: ratios of schedulers paired by seed, geometric means with 95 % intervals.

40 minutes on two cores; `--quick` takes 5, with 2 seeds and fewer requests: its intervals say little. Workloads whose
trace does not ship with halffull (arrivals of Azure's, all of Mooncake's) need `--traces`; README.md says where they are.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from schedulers import pages
from schedulers.cells import Cell, Played, play_all, settings
from schedulers.goals import Goal, cells, goals
from schedulers.intervals import Estimate

SEEDS, QUICK_SEEDS = 10, 2
HEAD = ("goal", "figure", "bound", "found", "verdict")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="2 seeds, fewer requests: 5 minutes")
    parser.add_argument("--traces", metavar="DIR", help="directory with the traces that do not ship with halffull")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"runs of each ({SEEDS})")
    parser.add_argument("--goal", action="append", metavar="NAME", help="G1, G2, G3 or G5 alone; may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (%(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into FILE, between its marks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all runs to FILE")


def run(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    seeds = arguments.seeds or (QUICK_SEEDS if arguments.quick else SEEDS)
    wanted = [cell for cell in cells(quick=arguments.quick) if not arguments.goal or cell.name[:2] in arguments.goal]
    lines = [goal for goal in goals() if not arguments.goal or goal.name in arguments.goal]
    made, missing = settings(wanted, arguments.traces)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("playing", total=seeds * len(made))
        played = play_all(wanted, made, seeds, max(1, arguments.jobs), lambda: progress.advance(task))
    estimates = [goal.estimate(played) for goal in lines]
    console = Console(width=150)
    console.print(table(lines, estimates, seeds))
    for reason in sorted(set(missing.values())):
        console.print(f"not played: {reason}", style="yellow")
    lengths = "of the given traces" if arguments.traces else "of the samples that ship with halffull"
    console.print(f"lengths {lengths}; {time.monotonic() - began:.0f} s with {arguments.jobs} processes")
    if arguments.markdown is not None:
        cells_of = ((g.name, g.says, g.bound(), *_found(g, e)) for g, e in zip(lines, estimates, strict=True))
        pages.write(arguments.markdown, "goals", pages.rows(HEAD, cells_of))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document(wanted, lines, estimates, played), indent=1) + "\n")
    return 0


def table(lines: Sequence[Goal], estimates: Sequence[Estimate | None], seeds: int) -> Table:
    """Return the table of goals."""
    result = Table(title=f"goals, {seeds} seeds: geometric mean [95 % interval]", title_justify="left", box=None)
    for name in HEAD:
        result.add_column(name, no_wrap=True)
    for goal, estimate in zip(lines, estimates, strict=True):
        result.add_row(goal.name, goal.says, goal.bound(), *_found(goal, estimate))
    return result


def document(
    wanted: Sequence[Cell], lines: Sequence[Goal], estimates: Sequence[Estimate | None], played: dict[str, Played]
) -> dict[str, object]:
    """Return what goes to JSON: goals, and every cell with its figures by seed."""
    return {
        "goals": [
            {
                "goal": goal.name,
                "figure": goal.says,
                "bound": goal.bound(),
                "found": asdict(estimate) if estimate else None,
                "met": goal.met(estimate) if estimate else None,
            }
            for goal, estimate in zip(lines, estimates, strict=True)
        ],
        "cells": [
            {
                "name": cell.name,
                "scenario": dict(cell.scenario),
                "scheduling": dict(cell.scheduling),
                "loads": played[cell.name].loads,
                "figures": {seed: asdict(one) for seed, one in played[cell.name].figures.items()},
            }
            for cell in wanted
            if cell.name in played
        ],
    }


def _found(goal: Goal, estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "-", "not judged"
    if not goal.theirs:
        return f"{estimate.mean:.4f}", "met" if goal.met(estimate) else "NOT met"
    return str(estimate), "met" if goal.met(estimate) else "NOT met"
