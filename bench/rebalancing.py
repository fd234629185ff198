"""How close the operator's rebalancer comes to an oracle, in simulation: a replica that is slow, is shared with others, or is small.

The ratio is that of the p99 of the time to the first token, over that with weights which are right from the start, on the
same requests; of those that arrive once weights are found and what piled up until then is served. A p99 is noisy: "begun
later" is the oracle against itself, with its weights from the first second on, so that other requests meet. "Too high" has the
odd replica's weight 8 % above the oracle's, as an estimate might.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from halffull.api.scenario import Contender, Scenario
from halffull.sim.measure import percentile
from halffull.sim.setting import Setting, setting
from halffull.sim.simulation import Simulation

SETTLED_S = 400
ODD = 3
SLOW = {"speeds": [1, 1, 1, 1 / 3]}
CASES: tuple[tuple[str, str, float, dict[str, Any], float], ...] = (
    ("one 3x slower", "round-robin", 0.5, SLOW, 1 / 3),
    ("one 3x slower", "round-robin", 0.62, SLOW, 1 / 3),
    ("one 3x slower", "least-requests", 0.62, SLOW, 1 / 3),
    ("30 % of others", "round-robin", 0.6, {"others": [{"replica": ODD, "load": 0.3}]}, 0.7),
    ("half the KV", "round-robin", 0.7, {"kvParts": [1, 1, 1, 0.5]}, 1.0),
)
KINDS = ("rebalancer", "begun later", "too high")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    figures = []
    print(f"{'fleet':<16}{'policy':<16}{'load':<6}{'oracle p99':<12}" + "".join(f"{kind:<20}" for kind in KINDS))
    for name, policy, load, engines, weight in CASES:
        document = {"requests": 24_000, "load": load, "engines": {"count": 4, **engines}}
        still = setting(Scenario.model_validate(document))
        looking = setting(Scenario.model_validate({**document, "routers": {"rebalanceSeconds": 5}}))
        found: dict[str, list[float]] = {kind: [] for kind in ("oracle", *KINDS)}
        for seed in range(arguments.seeds):
            found["oracle"].append(p99(still, policy, seed, weight))
            found["rebalancer"].append(p99(looking, policy, seed))
            found["begun later"].append(p99(still, policy, seed, weight, from_s=1.0))
            found["too high"].append(p99(still, policy, seed, 1.08 * weight))
        ratios = {kind: [one / best for one, best in zip(found[kind], found["oracle"], strict=True)] for kind in KINDS}
        figures.append({"fleet": name, "policy": policy, "load": load, "oracleP99": found["oracle"], "ratios": ratios})
        shown = "".join(f"{spread(ratios[kind]):<20}" for kind in KINDS)
        print(f"{name:<16}{policy:<16}{load:<6}{geometric_mean(found['oracle']):<12.2f}{shown}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def p99(plan: Setting, policy: str, seed: int, weight: float | None = None, *, from_s: float = 0.0) -> float:
    """Return the p99 of the time to the first token, seconds, of what arrives settled; `weight`: the odd replica's."""
    contender = Contender.model_validate({"name": policy, "scheduling": {"policy": policy}})

    def weigh(simulation: Simulation) -> None:
        if weight is not None and simulation.now >= from_s:
            for page in simulation.engines[ODD].pages:
                page.replica.weight = weight

    simulation = Simulation(plan, contender, seed, watch=weigh)
    simulation.run()
    waits = sorted(
        (demand.first or 0.0) - demand.arrived for demand in simulation.demands if demand.arrived > SETTLED_S
    )
    return percentile(waits, 0.99)


def spread(ratios: Sequence[float]) -> str:
    return f"{geometric_mean(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"
