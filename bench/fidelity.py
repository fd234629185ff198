"""Whether the simulator tells the truth: the same requests through `halffull up` in real time and through the simulator.

Simulated engines at a pace at which a step lasts at least 20 ms, a router and a client on this machine; then the simulator with
as many replicas of that speed and the same arrivals. Compared are times to the first token, the first tenth left out.
A run in which this machine was busy for 60 % of the time or more is void: it would measure the machine.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import uvloop
import yaml

from halffull.api.scenario import Contender, Scenario
from halffull.local import workload
from halffull.local.client import Client, Outcome, Target
from halffull.local.prompts import Prompts
from halffull.local.replay import Replay
from halffull.local.report import percentile
from halffull.sim.profiles import PROFILES
from halffull.sim.saturation import saturated_throughput
from halffull.sim.setting import Setting
from halffull.sim.simulation import Simulation
from halffull.sim.trace import BLOCK_TOKENS, Call, recorded_lengths

REPLICAS = 3
SLOWDOWN = 2.2
"""makes the shortest step of the profile 20.9 ms"""
PROFILE = PROFILES["a100"]
BUSIEST = 0.6
UNMEASURED = 0.1
LIMITS = {"p50": 0.10, "p99": 0.20}
"""how far a percentile of the simulator may be from the measured one"""


@dataclass(frozen=True)
class Workload:
    """What is sent, and by which policy it is placed."""

    name: str
    policy: str
    load: float
    """over the throughput of saturated replicas"""
    pool: tuple[Call, ...]
    prefix_cache: bool = False


@dataclass(frozen=True)
class Verdict:
    """One comparison, times in seconds."""

    workload: str
    policy: str
    requests: int
    failed: int
    busy: float
    """part of the time that this machine's processors were at work"""
    measured: dict[str, float]
    simulated: dict[str, float]

    @property
    def void(self) -> bool:
        """Whether it says nothing."""
        return self.busy >= BUSIEST or self.failed > 0

    @property
    def off(self) -> dict[str, float]:
        """Distance of the simulator's percentiles from the measured ones, relative."""
        return {name: self.simulated[name] / self.measured[name] - 1 for name in LIMITS}

    @property
    def good(self) -> bool:
        """Whether all are within their limits."""
        return all(abs(self.off[name]) <= limit for name, limit in LIMITS.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=120.0, help="length of each of the three runs")
    parser.add_argument(
        "--only", metavar="NAME", choices=[each.name for each in workloads()], help="only this workload"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    verdicts = []
    print(f"{'workload':<14}{'policy':<18}{'requests':>8}{'busy':>6}  TTFT p50: measured, simulated        p99")
    for each in workloads():
        if arguments.only not in {None, each.name}:
            continue
        verdict = uvloop.run(compare(each, arguments.seconds))
        verdicts.append(verdict)
        told = "void" if verdict.void else "good" if verdict.good else "OFF"
        figures = "   ".join(
            f"{verdict.measured[name]:8.3f} s {verdict.simulated[name]:8.3f} s {verdict.off[name]:+6.1%}"
            for name in LIMITS
        )
        print(
            f"{each.name:<14}{each.policy:<18}{verdict.requests:>8}{verdict.busy:>6.0%}  {figures}   {told}", flush=True
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n")
    return 1 if any(verdict.void or not verdict.good for verdict in verdicts) else 0


def workloads() -> list[Workload]:
    """Three: conversations, code, and talks over system prompts before engines with a prefix cache."""
    return [
        Workload("conversation", "sal", 0.8, tuple(recorded_lengths("conversation"))),
        Workload("code", "halffull", 0.7, tuple(recorded_lengths("code"))),
        Workload("talks", "prefix-affinity", 0.8, tuple(talks(Random(5), 4000)), prefix_cache=True),
    ]


def talks(rng: Random, count: int) -> Iterator[Call]:
    """Turns of conversations that begin with one of four system prompts; each turn's prompt holds those before."""
    held = {talk: (talk % 4, 100 + talk % 4) for talk in range(200)}
    name = 1000
    for _ in range(count):
        talk = rng.randrange(len(held))
        yield Call(
            0.0,
            len(held[talk]) * BLOCK_TOKENS + rng.randrange(20, BLOCK_TOKENS),
            rng.randrange(20, 300),
            held[talk],
        )
        name += 1
        held[talk] = (*held[talk], name) if len(held[talk]) < 8 else held[talk][:2]


async def compare(each: Workload, seconds: float) -> Verdict:
    """Measure, simulate, compare."""
    rate = each.load * REPLICAS * saturated_throughput(each.pool, PROFILE) / SLOWDOWN
    rng = Random(7)
    pool = each.pool if each.prefix_cache else [*next_of(each.pool, rng, int(rate * seconds * 2))]
    calls = list(workload.limited(workload.poisson(pool, rate, rng), None, seconds))
    outcomes, busy = await measured(each, calls)
    start = calls[int(UNMEASURED * len(calls))].at_s
    live = [outcome.ttft_s for outcome in outcomes if outcome.ttft_s is not None and outcome.call.at_s >= start]
    return Verdict(
        each.name, each.policy, len(calls), sum(outcome.error is not None for outcome in outcomes), round(busy, 3),
        percentiles(live), percentiles(simulated(each, calls, start)),
    )  # fmt: skip


def next_of(pool: Sequence[Call], rng: Random, count: int) -> Iterator[Call]:
    drawn = workload.drawn(pool, rng)
    return (next(drawn) for _ in range(count))


def percentiles(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"p50": percentile(ordered, 0.5), "p90": percentile(ordered, 0.9), "p99": percentile(ordered, 0.99)}


def simulated(each: Workload, calls: list[Call], start: float) -> list[float]:
    """Times to the first token in the simulator of what arrives from `start` on."""
    engines = {"count": REPLICAS, "speeds": [1 / SLOWDOWN]}
    scenario = Scenario.model_validate({"engines": engines, "routers": {"signalsSeconds": 1.0}})
    contender = Contender.model_validate({"name": each.policy, "scheduling": {"policy": each.policy}})
    rate = len(calls) / (calls[-1].at_s - calls[0].at_s)
    setting = Setting(scenario, PROFILE, each.prefix_cache, tuple(calls), poisson=False, saturation=1.0, rate=rate)
    simulation = Simulation(setting, contender, 0)
    simulation.run()
    late = start - calls[0].at_s
    return [demand.first - demand.arrived for demand in simulation.demands
            if demand.first is not None and demand.arrived >= late]  # fmt: skip


async def measured(each: Workload, calls: list[Call]) -> tuple[list[Outcome], float]:
    """What clients see of `halffull up`, and how busy this machine was."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "up.yaml"
        file.write_text(yaml.safe_dump(document(each)))
        with up(file) as (url, _):
            async with Client(Target(url, "m", api="completions"), Prompts(1)) as client:
                await warm_up(client)
                before = processor_seconds()
                replay = Replay(client, stream_share=1.0, rng=Random(1), ended=outcomes.append)
                await replay.run(calls)
                after = processor_seconds()
    busy, total = (late - early for early, late in zip(before, after, strict=True))
    return outcomes, busy / total


async def warm_up(client: Client) -> None:
    """Open connections, and let each process run its code once."""
    now = asyncio.get_running_loop().time
    await asyncio.gather(*(client.send(Call(0.0, 100, 3), now(), stream=True) for _ in range(4 * REPLICAS)))


def document(each: Workload) -> dict[str, Any]:
    """The ModelDeployment."""
    args = ["--slowdown", str(SLOWDOWN), "--block-size", str(BLOCK_TOKENS)]
    return deployment(each.policy, REPLICAS, [*args, *(["--enable-prefix-caching"] if each.prefix_cache else [])])


def deployment(policy: str, replicas: int, args: Sequence[str], **engine: Any) -> dict[str, Any]:
    """A ModelDeployment of simulated engines with these arguments; `engine`: more of its fields."""
    return {
        "apiVersion": "halffull.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "m"},
        "spec": {
            "model": "m",
            "engine": {"type": "simulated", "template": {"args": [*args]}, **engine},
            "replicas": replicas,
            "scheduling": {"policy": policy},
        },
    }


@contextmanager
def up(file: Path) -> Iterator[tuple[str, str]]:
    """Run `halffull up`; the URLs of its router and of the admin port."""
    command = [sys.executable, "-m", "halffull", "up", "--port", "0", "--admin-port", "0", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _urls(process)
        finally:
            process.terminate()
            process.communicate()


def _urls(process: "subprocess.Popen[str]") -> tuple[str, str]:
    for line in process.stdout or ():
        if found := re.search(r" at (http://\S+)/v1, .* admin (\S+)$", line):
            return found[1], found[2]
    raise RuntimeError("halffull up did not start")


def processor_seconds() -> tuple[float, float]:
    """Time that this machine's processors were at work since its start, and all of it, in ticks."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    sys.exit(run(parser.parse_args()))
