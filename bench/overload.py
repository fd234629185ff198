"""What three times as many requests as the engines can answer do to the router: throughput, memory, speed of refusals.

Two simulated engines and one router as processes. First a closed loop that keeps every sequence of the engines busy measures
the capacity; then requests arrive three times as fast, whatever is answered.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp

ENGINES = 2
SEQUENCES = 8
QUEUE = 64
TOKENS = 50
BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "word " * 200}],
    "max_tokens": TOKENS,
    "ignore_eos": True,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the overload")
    parser.add_argument("--factor", type=float, default=3.0, help="arrivals over capacity")
    parser.add_argument("--json", type=Path, metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines = [
            start(stack, folder, f"engine{n}", "engine", "--model", "m", "--max-num-seqs", str(SEQUENCES))
            for n in range(ENGINES)
        ]
        config = {
            "version": 1, "hash": "", "modelDeployment": {"name": "m"}, "model": "m",
            "engine": {
                "type": "simulated",
                "endpoints": [f"127.0.0.1:{engine['port']}" for engine in engines],
                "limits": {"maxSequences": SEQUENCES},
            },
            "scheduling": {"policy": "sal", "queue": {"maxRequests": QUEUE, "timeoutSeconds": 30.0}},
            "router": {"drain": {"acceptSeconds": 0, "seconds": 5}},
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        router = start(stack, folder, "router", "router", "--admin-port", "0", "--config", str(folder / "config.json"))
        report = asyncio.run(measure(router, arguments))
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))
    return 0


def start(stack: ExitStack, folder: Path, name: str, *command: str) -> dict[str, Any]:
    """Start a command of halffull; return its ports and pid. It is ended with the stack."""
    ready = folder / f"{name}.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen([sys.executable, "-m", "halffull", *command, *options], stdout=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    deadline = time.monotonic() + 60
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{name} did not start")
        time.sleep(0.05)
    ports: dict[str, Any] = json.loads(ready.read_text())
    return ports


async def measure(router: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    url = f"http://127.0.0.1:{router['port']}/v1/chat/completions"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        await asyncio.sleep(2)  # the router looks at its endpoints
        capacity = await closed_loop(session, url, seconds=arguments.seconds / 3)
        before = rss_mib(router["pid"])
        overload = await open_loop(session, url, capacity * arguments.factor, arguments.seconds, router["pid"])
    return {
        "capacityRequestsPerSecond": round(capacity, 2),
        "offeredRequestsPerSecond": round(capacity * arguments.factor, 2),
        "completedOverCapacity": round(overload.pop("completedPerSecond") / capacity, 3),
        "rssMibBefore": before,
        **overload,
    }


async def closed_loop(session: aiohttp.ClientSession, url: str, seconds: float) -> float:
    """Completed requests per second with every sequence busy and some in the router's queue."""
    end, done = time.monotonic() + seconds, 0
    began = time.monotonic() + seconds / 4

    async def client() -> None:
        nonlocal done
        while time.monotonic() < end:
            status, _, _ = await ask(session, url)
            done += status == 200 and began < time.monotonic() <= end

    await asyncio.gather(*(client() for _ in range(ENGINES * SEQUENCES + QUEUE // 2)))
    return done / (end - began)


async def open_loop(session: aiohttp.ClientSession, url: str, rate: float, seconds: float, pid: int) -> dict[str, Any]:
    start_at = time.monotonic()
    count = int(rate * seconds)
    memory = []

    async def one(number: int) -> tuple[int, str, float, float]:
        await asyncio.sleep(start_at + number / rate - time.monotonic())
        sent = time.monotonic()
        status, reason, took = await ask(session, url)
        return status, reason, took, sent

    async def watch() -> None:
        while time.monotonic() < start_at + seconds:
            memory.append(rss_mib(pid))
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*(one(number) for number in range(count)))
    await watching
    warm = start_at + seconds / 4
    done = sum(status == 200 and warm < sent + took <= start_at + seconds for status, _, took, sent in answers)
    refused = sorted(took for status, _, took, _ in answers if status == 429)
    return {
        "completedPerSecond": done / (seconds * 3 / 4),
        "answers": dict(Counter(f"{status} {reason}".strip() for status, reason, _, _ in answers)),
        "refusedMilliseconds": {
            q: round(refused[min(int(len(refused) * q / 100), len(refused) - 1)] * 1000, 1) for q in (50, 99)
        }
        if refused
        else {},
        "rssMibMax": max(memory),
        "rssMibEnd": memory[-1],
    }


async def ask(session: aiohttp.ClientSession, url: str) -> tuple[int, str, float]:
    """Status, reason of an error, and seconds."""
    sent = time.monotonic()
    async with session.post(url, json=BODY) as answer:
        await answer.read()
        return answer.status, answer.headers.get("x-halffull-reason", ""), time.monotonic() - sent


def rss_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)
