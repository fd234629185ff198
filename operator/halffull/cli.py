"""The command line: `halffull COMMAND ...`. Imports only the module of the command that runs, so that each starts fast.

A command is a module with `add_arguments(parser)` and `run(arguments) -> int`, the exit status.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "operator": ("halffull.controller.command", "watch custom resources and run routers for them"),
    "router": ("halffull.router.command", "route requests of one ModelDeployment to its replicas"),
    "engine": ("halffull.sim.command", "serve a simulated engine with vLLM's API"),
    "up": ("halffull.local.up", "run ModelDeployments from files on this machine"),
    "demo": ("halffull.local.demo", "show a live policy swap on simulated engines"),
    "load": ("halffull.local.load", "replay a trace against an OpenAI endpoint"),
    "simulate": ("halffull.sim.simulate", "compare schedulers on modelled replicas"),
    "policies": ("halffull.api.policies_command", "list policies, orderings and gates, or tell all of one"),
    "crds": ("halffull.api.command", "print the CustomResourceDefinitions"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="halffull", description="Router for replicas of large language models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:
            loaded = importlib.import_module(module)
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.run)
    parsed = parser.parse_args(arguments)
    status: int = parsed.run(parsed)
    return status


if __name__ == "__main__":
    sys.exit(main())
