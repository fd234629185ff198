"""`make chaos`: plays scenarios, prints what became of their requests; 1 if one missed a goal.

`make chaos ARGS='kill-half soak --requests 1000000 --json FILE'` plays some; without names all are played.
"""
# ruff: noqa: T201 (the output of a command)

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from chaos.record import Lengths, Record, table
from chaos.stage import LeftOutError, Stage

NAMES = sorted(path.stem.replace("_", "-") for path in (Path(__file__).parent / "scenarios").glob("*.py"))


async def play(name: str, lengths: Lengths, *, short: bool) -> Record:
    """Play one scenario."""
    module = import_module(f"chaos.scenarios.{name.replace('-', '_')}")
    record = Record(name, module.__doc__.splitlines()[0], short, lengths)
    with tempfile.TemporaryDirectory(prefix="halffull-chaos-") as folder:
        await module.play(Stage(Path(folder)), record)
    return record


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--short", action="store_true", help="as short as each tells something")
    usual = Lengths()
    parser.add_argument("--requests", type=int, default=usual.requests, help="of the soak (%(default)s)")
    parser.add_argument("--rate", type=float, default=usual.rate, help="of the soak, requests per second (%(default)s)")
    parser.add_argument(
        "--away", type=float, default=usual.away_s, metavar="SECONDS", help="of the API server (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if wrong := set(arguments.names) - set(NAMES):
        parser.error(f"no such scenario: {', '.join(wrong)}; there are {', '.join(NAMES)}")
    lengths = Lengths(arguments.requests, arguments.rate, arguments.away)
    documents: list[dict[str, Any]] = []
    status = 0
    for name in arguments.names or NAMES:
        began = time.monotonic()
        try:
            record = asyncio.run(play(name, lengths, short=arguments.short))
        except LeftOutError as why:
            print(f"{name}: left out: {why}", flush=True)
            continue
        except Exception:  # noqa: BLE001 (the others are still to be played)
            print(f"{name}: broke off", file=sys.stderr)
            traceback.print_exc()
            status = 1
            continue
        documents.append(record.document())
        status = status if record.good else 1
        print(f"{name}: {'reached' if record.good else 'MISSED'} in {time.monotonic() - began:.0f} s", flush=True)
    print(table(documents))
    if arguments.json:
        arguments.json.write_text(json.dumps(documents, indent=2) + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
