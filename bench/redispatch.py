"""What moving requests that wait in engines gains, in simulation: a replica that slows in mid-run, a burst onto a cold fleet.

Each policy is run with its re-dispatch and without, on the same requests; the ratio is that of the p99 of the time to the
first token, without over with. The cold fleet has not learned yet that one of its replicas is three times slower.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from halffull.api.scenario import Contender, Scenario
from halffull.sim.measure import UNMEASURED, percentile
from halffull.sim.setting import Setting, setting
from halffull.sim.simulation import Simulation

SLOWS = {"count": 4, "slowdowns": [{"replica": 0, "factor": 3, "fromSeconds": 40, "forSeconds": 60}]}
SCENARIOS: dict[str, dict[str, Any]] = {
    "slows 3x, load 0.7": {"requests": 8000, "load": 0.7, "engines": SLOWS},
    "slows 3x, load 0.85": {"requests": 8000, "load": 0.85, "engines": SLOWS},
    "burst, cold fleet": {"requests": 600, "rate": 400, "engines": {"count": 4, "speeds": [1, 1, 1, 0.33]}},
}
POLICIES = (("llumnix", None), ("halffull", None), ("halffull", "none"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    figures = []
    print(f"{'scenario':<21}{'policy/gate':<16}{'p99 without':>12}{'with':>8}   without/with          moved")
    for name, document in SCENARIOS.items():
        plan = setting(Scenario.model_validate(document))
        for policy, gate in POLICIES:
            runs = [[play(plan, policy, gate, most, seed) for most in (0, 3)] for seed in range(arguments.seeds)]
            ratios = [without[0] / moving[0] for without, moving in runs]
            p99 = [median(run[which][0] for run in runs) for which in (0, 1)]
            moved = median(moving[1] for _, moving in runs)
            chosen = f"{policy}/{gate or 'default'}"
            row = {"scenario": name, "policy": chosen, "p99Seconds": p99, "ratios": ratios, "movedShare": moved}
            figures.append(row)
            print(
                f"{name:<21}{chosen:<16}{p99[0]:>12.2f}{p99[1]:>8.2f}   {spread(ratios):<20}{moved:>7.1%}", flush=True
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def play(plan: Setting, policy: str, gate: str | None, most: int, seed: int) -> tuple[float, float]:
    """Return the p99 of the time to the first token, seconds, and the share of requests that was moved."""
    scheduling: dict[str, Any] = {"policy": policy, "parameters": {policy: {"maxMoves": most}}}
    if gate is not None:
        scheduling["gate"] = gate
    simulation = Simulation(plan, Contender.model_validate({"name": policy, "scheduling": scheduling}), seed)
    simulation.run()
    demands = simulation.demands
    waits = sorted((demand.first or 0.0) - demand.arrived for demand in demands[round(UNMEASURED * len(demands)) :])
    moved = sum(demand.exchange is not None and demand.exchange.moves > 0 for demand in demands)
    return percentile(waits, 0.99), moved / len(demands)


def spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"
