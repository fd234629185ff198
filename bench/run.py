"""Measurements, one per question. `make bench` runs all that are short; `make bench ARGS='proxy --rounds 3'` runs one, see `--help`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fidelity
import operator_cost
import overload
import path
import peers
import policies
import prefixes
import rebalancing
import redispatch
from proxy import compare
from schedulers import judge, reference

QUESTIONS = {
    "policies": (policies, "what one decision of each policy costs"),
    "path": (path, "what a request and a chunk cost in the router's own code, without sockets"),
    "fidelity": (fidelity, "whether the simulator's times to the first token are those of a real run"),
    "prefixes": (prefixes, "how far the index of prefixes is from what engines count, with and without KV events"),
    "overload": (overload, "what three times the engines' capacity does to throughput, memory and refusals"),
    "peers": (peers, "what it costs that routers share their books, and how close several come to one"),
    "operator": (operator_cost, "what the operator costs with 500 resources, and what watching 100 engines costs"),
    "rebalancing": (rebalancing, "how close the operator's rebalancer comes to an oracle, in simulation"),
    "redispatch": (redispatch, "what moving requests that wait in engines gains, in simulation"),
    "reference": (reference, "whether the simulator agrees with an independent one of the same engine model"),
    "schedulers": (judge, "which scheduler is ahead in simulation, and whether the goals hold; 40 minutes"),
    "proxy": (compare, "what a request and a streamed chunk cost the router, next to other proxies"),
}

LONG = {"operator", "rebalancing", "schedulers", "reference"}
"""simulations, which do not depend on this machine's speed; and what needs a control plane"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    commands = parser.add_subparsers(dest="question")
    for name, (module, summary) in QUESTIONS.items():
        module.add_arguments(commands.add_parser(name, help=summary))
    arguments = parser.parse_args()
    if arguments.question is not None:
        return int(QUESTIONS[arguments.question][0].run(arguments))
    return max(
        module.run(commands.choices[name].parse_args([])) for name, (module, _) in QUESTIONS.items() if name not in LONG
    )


if __name__ == "__main__":
    sys.exit(main())
