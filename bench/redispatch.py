"""What moving requests that wait in engines gains, in simulation: a replica that slows in mid-run, a burst onto a cold fleet.

Each policy is run with its re-dispatch and without, on the same requests; the ratio is that of the p99 of the time to the
first token of those that arrive while the replica is slow, without over with; of the burst, of all. The cold fleet has not
learned yet that one of its replicas is three times slower. `halffull` is run with its gate, which binds late, and with `none`:
what late binding gives by itself is the difference of the two without moves.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from halffull.api.scenario import Contender, Scenario
from halffull.sim.measure import percentile
from halffull.sim.setting import Setting, setting
from halffull.sim.simulation import Simulation

FROM_S, FOR_S = 40, 60
SCENARIOS: dict[str, dict[str, Any]] = {
    f"slows {factor}x, load {load}": {
        "requests": 6000,
        "load": load,
        "engines": {
            "count": 4,
            "slowdowns": [{"replica": 0, "factor": factor, "fromSeconds": FROM_S, "forSeconds": FOR_S}],
        },
    }
    for factor, load in ((3, 0.7), (3, 0.85), (10, 0.7))
} | {"burst, cold fleet": {"requests": 600, "rate": 400, "engines": {"count": 4, "speeds": [1, 1, 1, 0.33]}}}
POLICIES = (("llumnix", None), ("halffull", "none"), ("halffull", None))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    figures = []
    print(f"{'scenario':<21}{'policy/gate':<16}{'p99 without':>12}{'with':>8}   without/with          moved (medians)")
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
    slows = bool(plan.scenario.engines.slowdowns)
    waits = sorted(
        (demand.first or 0.0) - demand.arrived
        for demand in demands
        if not slows or FROM_S <= demand.arrived < FROM_S + FOR_S
    )
    moved = sum(demand.exchange is not None and demand.exchange.moves > 0 for demand in demands)
    return percentile(waits, 0.99), moved / len(demands)


def spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"
