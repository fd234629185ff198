"""What it costs that routers share their books, and what it gains: one router, several that share, several that do not.

First the CPU time per request of routers that share and of as many that do not (`sharing_cost`). Then the same requests in real
time before the same simulated engines, in turn, round after round; each request meets one of the routers at random. Compared in pairs
is the 99th percentile of the time to the first token.
"""

import argparse
import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import aiohttp
import sharing_cost
import uvloop
from overload import start

from halffull.local import workload
from halffull.local.client import Client, Outcome, Target
from halffull.local.prompts import Prompts
from halffull.local.replay import Replay
from halffull.local.report import percentile
from halffull.sim.profiles import PROFILES
from halffull.sim.saturation import saturated_throughput
from halffull.sim.trace import Call, recorded_lengths

MODES = ("one", "shared", "alone")
WARM = 0.25
"""part of each run whose times are not counted"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--routers", type=int, default=4, help="that are compared with one (default: %(default)s)")
    parser.add_argument("--engines", type=int, default=8)
    parser.add_argument("--load", type=float, default=0.9, help="over the throughput of saturated engines")
    parser.add_argument("--slowdown", type=float, default=1.0, help="of the engines, so that this machine keeps up")
    parser.add_argument("--trace", default="code", choices=("conversation", "code"), help="lengths of requests")
    parser.add_argument("--policy", default="sal")
    parser.add_argument("--modes", default=",".join(MODES), help="of %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each run; there are three a round")
    parser.add_argument(
        "--rates", default="56,120", help="requests/s at which the cost is measured (default: %(default)s)"
    )
    parser.add_argument("--cost-rounds", type=int, default=3, help="of runs with and without peers; 0: none")
    parser.add_argument("--json", type=Path, metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    rates = [float(rate) for rate in arguments.rates.split(",")]
    cost = {}
    if arguments.cost_rounds:
        cost = sharing_cost.measure(
            _routers, count=arguments.routers, engines=arguments.engines, rates=rates, rounds=arguments.cost_rounds
        )
    rounds = uvloop.run(_measure(arguments))
    ratios = {
        f"p99 TTFT, {mode} over one": [found[mode]["ttftP99"] / found["one"]["ttftP99"] for found in rounds]
        for mode in ("shared", "alone")
        if rounds and {mode, "one"} <= rounds[0].keys()
    }
    for name, values in ratios.items():
        print(f"{name}: median {median(values):.3f}, from {min(values):.3f} to {max(values):.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"cost": cost, "rounds": rounds, "ratios": ratios}, indent=1) + "\n")
    return 0


async def _measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    pool = recorded_lengths(arguments.trace)
    profile = PROFILES["a100"]
    rate = arguments.load * arguments.engines * saturated_throughput(pool, profile) / arguments.slowdown
    print(f"{rate:.1f} requests/s, {arguments.engines} engines at 1/{arguments.slowdown:g} speed", flush=True)
    rounds = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = ("engine", "--model", "m", "--slowdown", str(arguments.slowdown))
        engines = [start(stack, folder, f"engine{n}", *options) for n in range(arguments.engines)]
        config = {
            "version": 1, "hash": "", "modelDeployment": {"name": "m"}, "model": "m",
            "engine": {"type": "simulated", "endpoints": [f"127.0.0.1:{engine['port']}" for engine in engines]},
            "scheduling": {"policy": arguments.policy},
            "router": {"drain": {"acceptSeconds": 0, "seconds": 1}},
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "token").write_text("a secret")
        for number in range(arguments.rounds):
            rng = Random(number)
            calls = list(
                workload.limited(workload.poisson(workload.drawn(pool, rng), rate, rng), None, arguments.seconds)
            )
            found = {}
            modes = arguments.modes.split(",")
            for mode in modes[number % len(modes) :] + modes[: number % len(modes)]:
                with _routers(folder, 1 if mode == "one" else arguments.routers, shared=mode == "shared") as routers:
                    found[mode] = await _replay(routers, calls, arguments)
                print(f"round {number + 1}, {mode}: {json.dumps(found[mode])}", flush=True)
            rounds.append(found)
    return rounds


@contextmanager
def _routers(folder: Path, count: int, *, shared: bool) -> Any:
    """Fresh routers, which have learned nothing."""
    with ExitStack() as stack:
        ports = _free_ports(count)
        routers = []
        for number, port in enumerate(ports):
            (folder / f"router{number}.json").unlink(missing_ok=True)
            options = ["router", "--admin-port", "0", "--config", str(folder / "config.json"), "--log-level", "warning"]
            if shared:
                others = ",".join(f"127.0.0.1:{other}" for other in ports)
                options += ["--peers", others, "--peer-port", str(port), "--peer-token-file", str(folder / "token")]
            routers.append(start(stack, folder, f"router{number}", *options))
        yield routers


class _Spread:
    """Clients of several routers; each request meets one of them at random."""

    def __init__(self, clients: Sequence[Client], rng: Random) -> None:
        self._clients = clients
        self._rng = rng

    async def send(self, *arguments: Any, **options: Any) -> Outcome:
        """Send one request."""
        return await self._rng.choice(self._clients).send(*arguments, **options)


async def _replay(
    routers: Sequence[dict[str, Any]], calls: Sequence[Call], arguments: argparse.Namespace
) -> dict[str, Any]:
    outcomes: list[Outcome] = []
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(Target(f"http://127.0.0.1:{router['port']}", "m"), Prompts(number)))
            for number, router in enumerate(routers)
        ]
        await _until_ready(routers, arguments)
        spread: Any = _Spread(clients, Random(1))
        replay = Replay(spread, stream_share=1.0, rng=Random(1), ended=outcomes.append)
        before = [_cpu_s(router["pid"]) for router in routers]
        await replay.run(calls)
        cpu_s = sum(_cpu_s(router["pid"]) for router in routers) - sum(before)
    ttfts = sorted(o.ttft_s for o in outcomes if o.ttft_s is not None and o.call.at_s >= WARM * arguments.seconds)
    return {
        "ttftP50": round(percentile(ttfts, 0.5), 4), "ttftP99": round(percentile(ttfts, 0.99), 4),
        "cpuMs": round(1000 * cpu_s / len(outcomes), 3), "requests": len(outcomes),
        "failed": sum(outcome.error is not None for outcome in outcomes),
    }  # fmt: skip


async def _until_ready(routers: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Wait until all replicas are known, and all peers."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        for router in routers:
            while True:
                async with session.get(f"http://127.0.0.1:{router['adminPort']}/status") as answer:
                    status = await answer.json()
                peers = status["peers"]
                met = "router" not in peers or len(peers["connected"]) == len(routers) - 1
                if met and sum(r["state"] == "Ready" for r in status["replicas"]) == arguments.engines:
                    break
                await asyncio.sleep(0.1)


def _cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
