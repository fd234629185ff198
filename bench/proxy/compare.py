"""CPU that a request and a streamed chunk cost halffull and other proxies: same stubs, same load, one core each.

Rounds alternate between the proxies within one run, so that what else the machine does meets all alike; ratios are of
figures of the same round. CPU seconds are the kernel's, of the proxy's process, never wall-clock. Requests come at a fixed
rate, whatever the proxy does; a case in which a proxy was above 80 % of its core does not count. Needs Go and two cores.

A process of the lowest priority keeps the proxies' core awake: a virtual core that halts comes back with its caches emptied
by other guests, as often as the host likes, and that would be measured.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from proxy import report
from proxy.peers import PEERS, Peer, Place, free_port

HERE = Path(__file__).parent
START_S = 30.0
AWAKE = """import os, sys
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.sched_setaffinity(0, {int(sys.argv[1])})
parent = os.getppid()
while os.getppid() == parent:
    pass
"""


@dataclass(frozen=True)
class Case:
    """One kind of traffic."""

    name: str
    load: tuple[str, ...]
    per: str = "request"
    """what the cost is divided by: a request, an event of a stream, or a second"""
    warm_up_s: float = 1.5


_STREAM = ("-stream", "-prompt", "2000")
CASES = (
    Case("idle", ("-c", "0"), "second"),
    Case("2 kB prompt", ("-c", "32", "-rate", "3000", "-prompt", "2000")),
    Case("64 kB prompt", ("-c", "32", "-rate", "600", "-prompt", "65000")),
    Case("1 MB prompt", ("-c", "8", "-rate", "30", "-prompt", "1000000")),
    Case("new connection", ("-c", "32", "-rate", "1000", "-prompt", "2000", "-fresh")),
    Case("100 streams, 10 ms", ("-c", "100", *_STREAM, "-tokens", "400", "-gap-us", "10000"), "event"),
    Case("1000 streams, 100 ms", ("-c", "1000", *_STREAM, "-tokens", "200", "-gap-us", "100000"), "event", 3.0),
    Case("20 tokens a chunk", ("-c", "100", *_STREAM, "-tokens", "800", "-gap-us", "10000", "-burst", "20"), "event"),
)


@dataclass(frozen=True)
class Running:
    """A proxy that serves."""

    peer: Peer
    url: str
    pid: int
    metrics: str
    """URL of its metrics"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each proxy and case (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each (default: 4)")
    parser.add_argument("--case", action="append", metavar="TEXT", help="cases whose name contains TEXT; repeatable")
    parser.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS], help="... of these alone")
    parser.add_argument(
        "--program", action="append", default=[], metavar="PEER=FILE", help="the program of a proxy, if not on PATH"
    )
    parser.add_argument("--sleepy", action="store_true", help="let the proxies' core halt when it has nothing to do")
    parser.add_argument("--engines", type=int, default=16, help="stub engines (default: 16)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or shutil.which("go") is None or shutil.which("taskset") is None:
        print("proxy: skipped: needs two cores, Go and taskset")
        return 0
    peers = present(arguments)
    cases = [case for case in CASES if not arguments.case or any(text in case.name for text in arguments.case)]
    figures: dict[str, Any] = {"python": platform.python_version(), "cases": {}}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subprocess.run(["go", "build", "-o", f"{folder}/", "./load", "./stub"], cwd=HERE, check=True)
        others = ",".join(map(str, cores[1:]))
        engines = stack.enter_context(stubs(folder, arguments.engines, others))
        running = [
            stack.enter_context(started(peer, program, folder, engines, cores[0])) for peer, program in peers.items()
        ]
        if not arguments.sleepy:
            stack.enter_context(awake(cores[0]))
        for case in cases:
            taking_part = [one for one in running if case.per == "event" or not one.peer.streams_only]
            load = ["taskset", "-c", others, f"{folder}/load", *case.load]
            rounds = measure(taking_part, load, case.warm_up_s, arguments)
            figures["cases"][case.name] = {"per": case.per, "rounds": rounds}
            report.table(case.name, case.per, rounds)
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    report.summary(figures["cases"])
    return 0


def present(arguments: argparse.Namespace) -> dict[Peer, str]:
    """Return the proxies that this machine has, with their programs; name the others."""
    told = dict(text.split("=", 1) for text in arguments.program)
    found = {}
    for peer in PEERS:
        if arguments.peer and peer.name not in arguments.peer:
            continue
        program = shutil.which(told.get(peer.name, peer.program))
        print(f"{peer.name}: {peer.configured if program else f'MISSING: no {peer.program} on PATH'}")
        if program:
            found[peer] = program
    return found


@contextlib.contextmanager
def awake(core: int) -> Iterator[None]:
    """Keep a core from halting."""
    with subprocess.Popen([sys.executable, "-c", AWAKE, str(core)]) as process:
        try:
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def stubs(folder: Path, count: int, cores: str) -> Iterator[list[str]]:
    """Run the stub engines; yield their addresses."""
    command = ["taskset", "-c", cores, f"{folder}/stub", "-n", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield json.loads(process.stdout.readline() if process.stdout else "")
        finally:
            process.terminate()


@contextlib.contextmanager
def started(peer: Peer, program: str, folder: Path, engines: Sequence[str], core: int) -> Iterator[Running]:
    """Run a proxy; yield it once it answers."""
    own = folder / f"{peer.name}.d"
    own.mkdir()
    place = Place(program, own, engines, free_port(), free_port())
    command = ["taskset", "-c", str(core), *peer.start(place)]
    with (own / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            await_answer(f"http://127.0.0.1:{place.port}/v1/models", process)
            url, metrics = f"http://127.0.0.1:{place.port}/v1/chat/completions", f"http://127.0.0.1:{place.admin}"
            yield Running(peer, url, process.pid, f"{metrics}/metrics")
        finally:
            process.kill()


def await_answer(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Return once the URL answers. Raises RuntimeError if the process ends or takes too long."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(URLError, ConnectionError), urlopen(url, timeout=1):  # noqa: S310  # our own address
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} did not start")


def measure(
    running: list[Running], load: list[str], warm_up_s: float, arguments: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Return what the load generator reported, by proxy, round by round; the order turns each round."""
    rounds: dict[str, list[dict[str, Any]]] = {one.peer.name: [] for one in running}
    for number in range(arguments.rounds):
        for one in running if number % 2 == 0 else reversed(running):
            command = [*load, "-url", one.url, "-pid", str(one.pid), "-seconds", str(arguments.seconds)]
            with subprocess.Popen([*command, "-warm-up", str(warm_up_s)], stdout=subprocess.PIPE, text=True) as process:
                time.sleep(warm_up_s)  # in which all connections are made
                before = delays(one)
                report, _ = process.communicate()
            counts = {bound: count - before[bound] for bound, count in delays(one).items()}
            rounds[one.peer.name].append(json.loads(report) | ({"loopDelays": counts} if counts else {}))
    return rounds


def delays(one: Running) -> dict[str, float]:
    """Return how often the proxy's event loop was at most so many seconds late; nothing where it does not tell."""
    if not one.peer.tells_delay:
        return {}
    with urlopen(one.metrics, timeout=5) as answer:  # noqa: S310  # our own address
        lines = answer.read().decode().splitlines()
    rows = (line.split('"') for line in lines if line.startswith("halffull_router_loop_delay_seconds_bucket{"))
    return {bound: float(rest.removeprefix("} ")) for _, bound, rest in rows}
