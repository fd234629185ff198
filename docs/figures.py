"""Writes docs/figures.json: what each policy of the catalog does in simulation. `docs/tables.py` puts it into docs/policies.md.

Takes some minutes; to be run when a policy, or what it rests on, has changed: `make figures`.
"""

import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from halffull.api.scenario import Scenario
from halffull.policies.catalog import POLICIES
from halffull.sim.comparison import compare
from halffull.sim.setting import setting
from halffull.sim.simulate import contender

PAGE = Path(__file__).parent / "figures.json"
SCENARIOS = {
    "chats": {"workload": "convP", "load": 0.9, "requests": 3_000},
    "code": {"workload": "codeP", "load": 0.9, "requests": 3_000},
    "little memory": {"workload": "convTP", "load": 0.9, "requests": 3_000},
    "turns": {
        "workload": "convP",
        "load": 0.8,
        "requests": 3_000,
        "engines": {"prefixCache": True},
        "clients": {"sessions": {"turns": 5, "thinkSeconds": 10}},
    },
}
"""eight replicas each, lengths that ship with halffull"""
SEEDS = 3
BASELINE = "round-robin"


def main() -> int:
    """Run them all, write the page; return the exit status."""
    figures: dict[str, dict[str, float]] = {name: {} for name in POLICIES}
    contenders = [contender(name) for name in POLICIES]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("simulating", total=len(SCENARIOS) * len(POLICIES) * SEEDS)
        for name, fields in SCENARIOS.items():
            document = {**fields, "seeds": SEEDS, "baseline": BASELINE, "contenders": contenders}
            plan = setting(Scenario.model_validate(document))
            for summary in compare(plan, os.cpu_count() or 1, lambda _: progress.advance(task)):
                figures[summary.contender][name] = round(summary.ratio.mean, 2)
    PAGE.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stderr.write(f"docs/{PAGE.name}: written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
