"""`halffull simulate`: compares schedulers on modelled replicas, with the router's own code, on a virtual clock."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from halffull.api import flags
from halffull.api.errors import DocumentError, sentences
from halffull.api.scenario import Scenario
from halffull.sim.comparison import Summary, compare
from halffull.sim.goodput import Goodput, goodputs
from halffull.sim.optimum import Distance, distances
from halffull.sim.plot import PlotError, draw, figure_module
from halffull.sim.presets import PRESETS
from halffull.sim.setting import Setting, SettingError, setting
from halffull.sim.table import distance_table, goodput_table, table, title
from halffull.sim.trace import TraceError

KINDS = ("policy", "ordering", "gate")
DEFAULT_POLICIES = "round-robin,least-requests,sal"
PLOTTED_LOADS = (0.5, 0.7, 0.85, 1.05)
"""relative to the scenario's own"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options; each overrides the scenario's field."""
    parser.add_argument("scenario", nargs="?", type=Path, metavar="FILE", help="scenario in YAML")
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--policies",
        metavar="LIST",
        help=f"POLICY[/ORDERING[/GATE]],... or the bounds super and oracle; the first is the baseline ({DEFAULT_POLICIES})",
    )
    what.add_argument("--baseline", metavar="NAME", help="the one that others are compared with")
    what.add_argument("--seeds", type=int, metavar="N", help="runs of each")

    load = parser.add_argument_group("requests")
    load.add_argument("--workload", metavar="NAME", help=f"one of {', '.join(PRESETS)} (convP)")
    load.add_argument(
        "--trace",
        metavar="FILE",
        help="trace, or directory with the workload's; absent: lengths that ship with halffull",
    )
    load.add_argument("--arrivals", choices=("trace", "poisson"), help="as recorded, or independent")
    load.add_argument("--load", type=float, metavar="X", help="arrival rate over what saturated replicas do (0.9)")
    load.add_argument("--rate", type=float, metavar="X", help="arrival rate, requests a second")
    load.add_argument("--requests", type=int, metavar="N", help="requests of a run")

    fleet = parser.add_argument_group("fleet")
    fleet.add_argument("--replicas", type=int, metavar="N", help="number of replicas (8)")
    fleet.add_argument("--profile", choices=("a100", "h100"), help="GPU to model")
    fleet.add_argument("--kv-tokens", type=int, metavar="N", help="KV cache of each replica")
    fleet.add_argument("--routers", type=int, metavar="N", help="number of routers (1)")
    fleet.add_argument(
        "--share", type=float, metavar="S", help="seconds until routers know of each other's changes (never)"
    )
    fleet.add_argument("--signals", type=float, metavar="S", help="seconds between scrapes of engine metrics (0.2)")

    output = parser.add_argument_group("output")
    output.add_argument("--json", type=flags.new_file, metavar="FILE", help="write all figures")
    output.add_argument(
        "--plot",
        type=flags.new_file,
        metavar="FILE",
        help="draw TTFT, p99 over load, and replicas over time (extra `plot`)",
    )
    output.add_argument("--goodput", action="store_true", help="search the largest load at which the objective is met")
    output.add_argument(
        "--optimum",
        type=flags.count,
        nargs="?",
        const=8,
        metavar="N",
        help="compare with the exact optimum of small cases of N requests (8), one for each seed",
    )
    output.add_argument("--objective", metavar="S", type=float, help="TTFT that is good, seconds (2)")
    output.add_argument("--share-good", metavar="X", type=float, help="share of requests that must be good (0.95)")
    output.add_argument(
        "--jobs", type=flags.count, default=os.cpu_count() or 1, metavar="N", help="processes (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare and print; 2 where the scenario cannot be run."""
    try:
        if arguments.plot is not None:
            figure_module()
        plan = setting(scenario_of(arguments))
    except (SettingError, TraceError, PlotError, DocumentError) as error:
        sys.stderr.write(f"halffull simulate: {error}\n")
        return 2
    console = Console(width=None if sys.stdout.isatty() else 200)
    if arguments.optimum:
        try:
            apart = _distances(plan, arguments.optimum)
        except ValueError as error:
            sys.stderr.write(f"halffull simulate: {error}\n")
            return 2
        console.print(distance_table(plan, arguments.optimum, apart))
        figures: dict[str, Any] = {"optimum": [asdict(each) for each in apart]}
    elif arguments.goodput:
        found = _search(plan, arguments.jobs)
        console.print(goodput_table(plan, found))
        figures = {"goodput": [asdict(each) | {"load": each.load} for each in found]}
    else:
        summaries = _compare(plan, arguments.jobs, timeline=arguments.plot is not None)
        console.print(table(plan, summaries))
        figures = {"contenders": [summary.document() for summary in summaries]}
        if arguments.plot is not None:
            draw(arguments.plot, title(plan), summaries, _other_loads(plan, summaries, arguments.jobs))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(described(plan) | figures, indent=1) + "\n")
    return 0


def scenario_of(arguments: argparse.Namespace) -> Scenario:
    """Return the scenario of the file, with the flags over it. Raises DocumentError."""
    fields: dict[str, Any] = {}
    if arguments.scenario is not None:
        fields = _document(arguments.scenario)
    for name in ("baseline", "seeds", "workload", "trace", "arrivals", "load", "rate", "requests"):
        _override(fields, name, getattr(arguments, name))
    _override(fields, "count", arguments.replicas, "engines")
    _override(fields, "profile", arguments.profile, "engines")
    _override(fields, "kvTokens", arguments.kv_tokens, "engines")
    _override(fields, "count", arguments.routers, "routers")
    _override(fields, "shareSeconds", arguments.share, "routers")
    _override(fields, "signalsSeconds", arguments.signals, "routers")
    _override(fields, "ttftSeconds", arguments.objective, "objective")
    _override(fields, "share", arguments.share_good, "objective")
    if arguments.policies is not None or "contenders" not in fields:
        fields["contenders"] = [contender(text) for text in (arguments.policies or DEFAULT_POLICIES).split(",")]
    try:
        return Scenario.model_validate(fields)
    except ValidationError as error:
        raise DocumentError(sentences(error, fields, Scenario)) from error


def contender(text: str) -> dict[str, Any]:
    """Return the entry of `contenders` that `POLICY[/ORDERING[/GATE]]` means. Raises DocumentError where it is more."""
    if text == "super":
        return {"name": text, "bound": "super", "scheduling": {"policy": "round-robin", "gate": "none"}}
    if text == "oracle":
        return {"name": text, "bound": "oracle", "scheduling": {"policy": "halffull", "ordering": "srpt"}}
    names = text.split("/")
    if len(names) > len(KINDS):
        raise DocumentError([f"--policies: {text!r} is not allowed; allowed: POLICY[/ORDERING[/GATE]]"])
    return {"name": text, "scheduling": {kind: name for kind, name in zip(KINDS, names, strict=False) if name}}


def described(plan: Setting) -> dict[str, Any]:
    """Return what was simulated, for the JSON document."""
    return {
        "scenario": plan.scenario.dump(),
        "saturationPerReplica": plan.saturation,
        "rate": plan.rate,
        "load": plan.load,
    }


def _override(fields: dict[str, Any], name: str, value: Any, block: str | None = None) -> None:
    if value is None:
        return
    if block is not None and fields.get(block) is None:
        fields[block] = {}
    target = fields if block is None else fields[block]
    if isinstance(target, dict):  # else the validation says that it must be
        target[name] = value


def _document(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError([f"{path}: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DocumentError([f"{path}: not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(found or {}, dict):
        raise DocumentError([f"{path}: a scenario is a mapping of fields, not {found!r:.40}"])
    return found or {}


def _compare(plan: Setting, jobs: int, *, timeline: bool = False) -> list[Summary]:
    runs = plan.scenario.seeds * len(plan.scenario.contenders)
    with _progress() as progress:
        task = progress.add_task("simulating", total=runs)
        return compare(plan, min(jobs, runs), lambda _: progress.advance(task), timeline=timeline)


def _distances(plan: Setting, size: int) -> list[Distance]:
    with _progress() as progress:
        task = progress.add_task("searching", total=plan.scenario.seeds)
        return distances(plan, size, lambda: progress.advance(task))


def _search(plan: Setting, jobs: int) -> list[Goodput]:
    with _progress() as progress:
        task = progress.add_task("searching", total=plan.scenario.seeds * len(plan.scenario.contenders))
        return goodputs(plan, jobs, lambda: progress.advance(task))


def _other_loads(plan: Setting, summaries: list[Summary], jobs: int) -> dict[float, list[Summary]]:
    """The comparison at a few more loads, around its own."""
    loads = {plan.load: summaries}
    for factor in PLOTTED_LOADS:
        loads[plan.load * factor] = _compare(plan.at_load(plan.load * factor), jobs)
    return dict(sorted(loads.items()))


def _progress() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)
