"""How far the index of prefixes is from what engines count, as an estimate and with their KV events, where memory is short.

Two simulated engines whose KV caches hold a few conversations, behind `halffull up`; conversations come back after others have
taken their room. Compared are the shares of prompt tokens that the router took to be cached, and that the engines found cached.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import uvloop
import yaml
from fidelity import deployment, talks, up

from halffull.local import workload
from halffull.local.client import Client, Outcome, Target
from halffull.local.prompts import Prompts
from halffull.local.replay import Replay

REPLICAS = 2
KV_TOKENS = 40_000
SPEEDUP = 4.0
RATE = 20.0
EVENTS = '{"enable_kv_cache_events": true, "endpoint": "tcp://127.0.0.1:0"}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each of the two runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    figures = {}
    print(f"{'index':<10}{'taken to be cached':>20}{'found cached':>15}{'off':>8}   share of prompt tokens")
    for source in ("estimate", "events"):
        told = uvloop.run(measured(source, arguments.seconds))
        figures[source] = told
        off = told["predicted"] - told["engine"]
        print(f"{source:<10}{told['predicted']:>20.3f}{told['engine']:>15.3f}{off:>+8.3f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


async def measured(source: str, seconds: float) -> dict[str, float]:
    """The shares over both replicas."""
    outcomes: list[Outcome] = []
    calls = [*workload.limited(workload.poisson(talks(Random(5), 100_000), RATE, Random(7)), None, seconds)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "up.yaml"
        file.write_text(yaml.safe_dump(document(source)))
        with up(file) as (url, admin):
            async with Client(Target(url, "m", api="completions"), Prompts(1)) as client:
                await Replay(client, stream_share=1.0, rng=Random(1), ended=outcomes.append).run(calls)
            async with aiohttp.ClientSession() as session, session.get(f"{admin}/status") as answer:
                pages = [replica["prefixCache"] for replica in (await answer.json())["replicas"]]
    failed = [outcome.error for outcome in outcomes if outcome.error]
    if failed or any(page["source"] != source for page in pages):
        raise RuntimeError(f"{len(failed)} requests failed; {pages}")
    return {name: sum(page[f"{key}Share"] for page in pages) / len(pages)
            for name, key in (("predicted", "predicted"), ("engine", "engine"))}  # fmt: skip


def document(source: str) -> dict[str, Any]:
    """The ModelDeployment."""
    args = ["--speedup", str(SPEEDUP), "--kv-tokens", str(KV_TOKENS), "--enable-prefix-caching"]
    events: dict[str, Any] = {"kvEvents": {}} if source == "events" else {}
    return deployment("prefix-affinity", REPLICAS, [*args, "--kv-events-config", EVENTS], **events)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
