"""What `halffull demo` runs: four simulated engines, one of them slower, the file that describes them, and the requests.

The constants are chosen so that two busy CPU cores can run it and that what limits the figures is the modelled GPUs.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Self

import aiohttp
import yaml

from halffull.local import workload
from halffull.local.engines import HOST, STOP_S, Recipe, Replica, free_port
from halffull.local.process import Guard, Process, Say
from halffull.sim.trace import Call, recorded_lengths

MODEL = "llama-3.1-8b"
NAME = "demo"
ENGINES = 4
SLOWDOWN = 1.5
"""of the last engine"""
SPEEDUP = 3.0
"""engines run this much faster than the A100 that they model, to measure more requests in the same time"""
KV_TOKENS = 60_000
"""as of an 8B model on a card of 24 to 40 GB, so that memory matters too"""
RATE = 14.5 * SPEEDUP
"""requests a second: nearly 80 % of what the four can do, and a little more than the slower one can do of a quarter of it"""
BEFORE, AFTER = "round-robin", "sal"


class Scene:
    """The engines and the file; an async context manager. Nothing it started outlives it."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.file = folder / "demo.yaml"
        self._say = say
        self._stack = AsyncExitStack()
        self._replicas: list[Replica] = []

    @property
    def names(self) -> dict[str, str]:
        """What people read, by the replica's name."""
        last = ENGINES - 1
        return {
            replica.name: f"engine {replica.number}" + (f" ({SLOWDOWN:g}x slower)" if replica.number == last else "")
            for replica in self._replicas
        }

    @property
    def slow(self) -> str:
        """Name of the slower replica."""
        return self._replicas[-1].name

    async def __aenter__(self) -> Self:
        """Start the engines and write the file with the policy BEFORE; raises StartError."""
        async with AsyncExitStack() as stack:
            guard = stack.enter_context(Guard())
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)))
            ports = list[int]()
            for _ in range(ENGINES):
                ports.append(free_port(ports))
            self._replicas = [Replica(number, _recipe(number), port, session) for number, port in enumerate(ports)]
            for replica in self._replicas:
                name = f"engine {replica.number}"
                replica.process = Process(name, replica.command, replica.healthy, guard=guard, say=self._say)
                stack.push_async_callback(replica.process.stop, STOP_S)
            async with asyncio.TaskGroup() as starts:
                for replica in self._replicas:
                    starts.create_task(replica.process.start())
            self.edit(BEFORE)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Stop the engines."""
        await self._stack.aclose()

    def edit(self, policy: str) -> None:
        """Write the file with another policy, as an editor does that replaces it."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(self._document(policy), sort_keys=False), encoding="utf-8")
        fresh.replace(self.file)

    def _document(self, policy: str) -> dict[str, object]:
        return {
            "apiVersion": "halffull.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": NAME},
            "spec": {
                "model": MODEL,
                "engine": {"type": "simulated", "endpoints": [replica.name for replica in self._replicas]},
                # No rebalancing meanwhile, so that the policy alone makes the difference.
                "scheduling": {"policy": policy, "rebalance": {"intervalSeconds": 3600}},
            },
        }


def requests(seconds: float, seed: int) -> Iterator[Call]:
    """Requests of recorded lengths, conversation and code mixed, that arrive independently."""
    rng = Random(seed)
    conversation, code = recorded_lengths("conversation"), recorded_lengths("code")
    pool = workload.mixed(conversation[: len(code)], code)
    return workload.limited(workload.poisson(workload.drawn(pool, rng), RATE, rng), None, seconds)


def _recipe(number: int) -> Recipe:
    slowdown = SLOWDOWN if number == ENGINES - 1 else 1.0
    options = {"--speedup": SPEEDUP, "--slowdown": slowdown, "--kv-tokens": KV_TOKENS}
    args = tuple(word for option, value in options.items() for word in (option, str(value)))
    return Recipe("simulated", MODEL, (sys.executable, "-m", "halffull", "engine", "--host", HOST), args)
