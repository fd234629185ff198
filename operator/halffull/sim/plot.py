"""Draws a comparison: distribution of TTFT, p99 over load, load of each replica over time. Called by `simulate --plot`.

matplotlib is an optional dependency (extra `plot`), imported here alone.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from halffull.sim.comparison import Summary


class PlotError(Exception):
    """matplotlib is not there."""


def figure_module() -> Any:
    """Return matplotlib's module of figures. Raises PlotError that says how to get it."""
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise PlotError("--plot needs matplotlib: pip install 'halffull[plot]'") from error


def draw(path: Path, title: str, summaries: Sequence[Summary], loads: Mapping[float, Sequence[Summary]]) -> None:
    """Write the picture to `path`, whose ending gives the form; `loads`: the same comparison at other loads."""
    figure = figure_module().Figure(figsize=(11, 4 + 2.2 * len(summaries)), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(1 + len(summaries), 2, height_ratios=[2] + [1] * len(summaries))
    _distribution(figure.add_subplot(grid[0, 0]), summaries)
    _over_load(figure.add_subplot(grid[0, 1]), loads)
    for number, summary in enumerate(summaries, start=1):
        _over_time(figure.add_subplot(grid[number, :]), summary)
    figure.savefig(path)


def _distribution(axes: Any, summaries: Sequence[Summary]) -> None:
    for summary in summaries:
        times = summary.runs[0].ttft
        axes.plot(times, [(place + 1) / len(times) for place in range(len(times))], label=summary.contender)
    axes.set(xscale="log", xlabel="TTFT, seconds (seed 0)", ylabel="share of requests", ylim=(0, 1.01))
    axes.legend()


def _over_load(axes: Any, loads: Mapping[float, Sequence[Summary]]) -> None:
    names = [summary.contender for summary in next(iter(loads.values()))]
    for place, name in enumerate(names):
        axes.plot(list(loads), [summaries[place].mean("ttft_p99") for summaries in loads.values()], "o-", label=name)
    axes.set(yscale="log", xlabel="load", ylabel="TTFT p99, seconds")


def _over_time(axes: Any, summary: Summary) -> None:
    timeline = summary.runs[0].timeline
    times = [at for at, _ in timeline]
    for replica in range(len(timeline[0][1]) if timeline else 0):
        axes.plot(times, [held[replica] for _, held in timeline], linewidth=0.6)
    axes.set(title=f"{summary.contender}: requests at each replica", xlabel="seconds")
