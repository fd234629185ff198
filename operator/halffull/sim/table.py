"""Prints a comparison as a table for people. Called by `simulate`."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from halffull.sim.comparison import Summary
from halffull.sim.goodput import Goodput
from halffull.sim.optimum import Distance
from halffull.sim.setting import Setting


def table(setting: Setting, summaries: Sequence[Summary]) -> Table:
    """Return one row per contender: means over the seeds, ± half the range where it matters."""
    scenario = setting.scenario
    baseline = scenario.baseline or scenario.contenders[0].name
    result = Table(title=title(setting), title_justify="left", box=None, pad_edge=False)
    result.add_column("policy", no_wrap=True)
    for heading in (
        "TTFT p50",
        "p95",
        "p99",
        f"{baseline}/x p99",
        "TPOT p99",
        "s/token",
        goal(setting),
        "tok/s",
        "preempt/req",
        "hits",
    ):
        result.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        result.add_row(*row(summary))
    failed = sum(sum(run.figures.failed.values()) for summary in summaries for run in summary.runs)
    if failed:
        result.caption = f"{failed} requests failed"
    return result


def goodput_table(setting: Setting, goodputs: Sequence[Goodput]) -> Table:
    """Return one row per contender: the largest load that meets the objective."""
    objective = setting.scenario.objective
    baseline = setting.scenario.baseline or setting.scenario.contenders[0].name
    base = next(goodput.load for goodput in goodputs if goodput.contender == baseline)
    heading = f"largest load with {objective.share:.0%} {goal(setting)}"
    result = Table(title=title(setting, load=False), title_justify="left", box=None, pad_edge=False)
    result.add_column("policy", no_wrap=True)
    for name in (heading, "range", f"x/{baseline}"):
        result.add_column(name, justify="right", no_wrap=True)
    for goodput in goodputs:
        span = f"{min(goodput.loads):.2f}-{max(goodput.loads):.2f}"
        result.add_row(goodput.contender, f"{goodput.load:.3f}", span, f"{goodput.load / base:.2f}" if base else "-")
    return result


def distance_table(setting: Setting, size: int, distances: Sequence[Distance]) -> Table:
    """Return one row per contender: how many times the optimum its figures are."""
    scenario = setting.scenario
    heading = f"{scenario.workload}: {scenario.seeds} cases of {size} requests on {scenario.engines.count} replicas"
    result = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for name in ("policy", "mean TTFT/optimum", "makespan/optimum"):
        result.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for distance in distances:
        result.add_row(distance.contender, f"{distance.mean_flow:.3f}", f"{distance.makespan:.3f}")
    return result


def goal(setting: Setting) -> str:
    """Return the objective of one request, in short."""
    objective = setting.scenario.objective
    return f"slowdown<{objective.slowdown:g}" if objective.slowdown else f"TTFT<{objective.ttft_seconds:g}s"


def title(setting: Setting, *, load: bool = True) -> str:
    """Return what was simulated, in a line."""
    scenario = setting.scenario
    routers = f", {scenario.routers.count} routers" if scenario.routers.count > 1 else ""
    at = f", load {setting.load:.2f} ({setting.rate:.1f} requests/s)" if load else ""
    recorded = setting.calls[0].live is not None and scenario.trace is not None
    return (
        f"{Path(scenario.trace or '').name if recorded else scenario.workload}, {scenario.engines.count} replicas{at}{routers}, "
        f"{scenario.seeds} seeds of {len(setting.calls)} requests"
    )


def row(summary: Summary) -> list[str]:
    """Return the cells of one contender."""
    ratio = summary.ratio
    return [
        summary.contender,
        f"{summary.mean('ttft_p50'):.3f}",
        f"{summary.mean('ttft_p95'):.2f}",
        f"{summary.mean('ttft_p99'):.2f}±{summary.half_range('ttft_p99'):.2f}",
        f"{ratio.mean:.2f} [{ratio.low:.2f}-{ratio.high:.2f}]",
        f"{summary.mean('tpot_p99'):.3f}",
        f"{summary.mean('normalised_latency'):.3f}",
        f"{summary.mean('good'):.3f}",
        f"{summary.mean('tokens_per_second'):.0f}",
        f"{summary.mean('preemptions'):.3f}",
        f"{summary.mean('prefix_hits'):.2f}",
    ]
