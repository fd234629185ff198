"""What `choose()` of each policy costs: microseconds at 16, 64 and 1000 replicas with idle, busy and mixed books.

Idle: nothing in flight anywhere, so every replica ties. Busy: every replica holds requests. Mixed: a third of them is idle.
The books change between two decisions as they do in the router: one request is sent, one ends.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from halffull.core.books import Replica
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request
from halffull.policies.catalog import POLICIES

SIZES = (16, 64, 1000)
STATES = ("idle", "busy", "mixed")
ROUNDS = 7
SECONDS_PER_ROUND = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="only this one; may be repeated")


def run(arguments: argparse.Namespace) -> int:
    figures = []
    print(
        f"{'policy':<16}{'replicas':>9}"
        + "".join(f"{state:>10}" for state in STATES)
        + "   microseconds of CPU, median"
    )
    for name in arguments.policy or POLICIES:
        for size in SIZES:
            costs = {state: cost(name, size, state) for state in STATES}
            figures.append({"policy": name, "replicas": size, "microseconds": costs})
            print(f"{name:<16}{size:>9}" + "".join(f"{costs[state]:>10.2f}" for state in STATES), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def cost(name: str, size: int, state: str) -> float:
    """Return microseconds of CPU per decision, the median over rounds."""
    rng = random.Random(1)
    replicas = fleet(size, state, rng)
    policy: Policy = POLICIES[name].make()
    for replica in replicas:
        policy.added(replica)
    requests = [Request(id=str(n), arrived=0.0, prompt_tokens=rng.randrange(20, 4000)) for n in range(256)]
    context = Context(0.0, rng)
    with_policy = median(one_round(policy, replicas, requests, context) for _ in range(ROUNDS))
    without = median(one_round(First(), replicas, requests, context) for _ in range(ROUNDS))
    return (with_policy - without) * 1e6


def one_round(policy: Policy, replicas: Sequence[Replica], requests: Sequence[Request], context: Context) -> float:
    """Return seconds per decision and what goes with it: the policy's own upkeep (`changed`), and booking."""
    decisions = 0
    start = time.process_time()
    while (used := time.process_time() - start) < SECONDS_PER_ROUND:
        for request in requests:
            context.now += 0.001
            replica = policy.choose(request, replicas, context)
            replica.sent(request.prompt_tokens, context.now)
            policy.changed(replica)
            replica.unsent(request.prompt_tokens)
            policy.changed(replica)
        decisions += len(requests)
    return used / decisions


class First(Policy):
    """Decides nothing: what remains is the cost of booking."""

    def choose(self, _request: Request, candidates: Sequence[Replica], _context: Context) -> Replica:
        """Return the first."""
        return candidates[0]


def fleet(size: int, state: str, rng: random.Random) -> list[Replica]:
    replicas = [Replica(f"replica-{n}", "10.0.0.1", 8000) for n in range(size)]
    for number, replica in enumerate(replicas):
        replica.place = number
        replica.kv_tokens = 400_000.0
        replica.prefill_rate = rng.choice((8_000.0, 10_000.0, 12_000.0))
        if state == "idle" or (state == "mixed" and number % 3 == 0):
            continue
        for _ in range(rng.randrange(1, 40)):
            tokens = rng.randrange(20, 4000)
            replica.sent(tokens, 0.0)
            if rng.random() < 0.9:
                replica.started(tokens, 0.0)
    return replicas
