"""CPU that a request and a streamed chunk cost halffull and other proxies: same stubs, same load, one core each.

Rounds alternate between the proxies within one run, so that what else the machine does meets all alike; ratios are of
figures of the same round. CPU seconds are the kernel's, of the proxy's process, never wall-clock. A figure of a proxy
that was above 80 % of its core is marked: it no longer says what a request costs under normal load. Needs Go and two cores.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from proxy.peers import PEERS, Peer, free_port

HERE = Path(__file__).parent
TOO_BUSY = 0.8
START_S = 30.0


@dataclass(frozen=True)
class Case:
    """One kind of traffic."""

    name: str
    load: tuple[str, ...]
    per: str = "request"
    """what the cost is divided by: a request, an event of a stream, or a second"""


CASES = (
    Case("idle", ("-c", "0"), "second"),
    Case("2 kB prompt", ("-c", "32", "-prompt", "2000")),
    Case("64 kB prompt", ("-c", "32", "-prompt", "65000")),
    Case("1 MB prompt", ("-c", "4", "-prompt", "1000000")),
    Case("new connection", ("-c", "32", "-prompt", "2000", "-fresh")),
    Case("100 streams, 10 ms", ("-c", "100", "-stream", "-tokens", "200", "-gap-us", "10000"), "event"),
    Case("1000 streams, 100 ms", ("-c", "1000", "-stream", "-tokens", "50", "-gap-us", "100000"), "event"),
    Case("20 tokens a chunk", ("-c", "100", "-stream", "-tokens", "400", "-gap-us", "10000", "-burst", "20"), "event"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each proxy and case (default: 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each (default: 5)")
    parser.add_argument(
        "--case", action="append", metavar="TEXT", help="only cases whose name contains TEXT; may be repeated"
    )
    parser.add_argument("--engines", type=int, default=16, help="stub engines (default: 16)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or shutil.which("go") is None or shutil.which("taskset") is None:
        print("proxy: skipped: needs two cores, Go and taskset")
        return 0
    peers = [peer for peer in PEERS if shutil.which(peer.program)]
    for peer in PEERS:
        print(f"{peer.name}: {peer.configured if peer in peers else f'skipped: no {peer.program} on PATH'}")
    cases = [case for case in CASES if not arguments.case or any(text in case.name for text in arguments.case)]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subprocess.run(["go", "build", "-o", f"{folder}/", "./load", "./stub"], cwd=HERE, check=True)
        others = ",".join(map(str, cores[1:]))
        engines = stack.enter_context(stubs(folder, arguments.engines, others))
        urls = {peer: stack.enter_context(started(peer, folder, engines, cores[0])) for peer in peers}
        figures = {}
        for case in cases:
            figures[case.name] = measure(case, urls, ["taskset", "-c", others, f"{folder}/load"], arguments)
            report(case, figures[case.name])
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


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
def started(peer: Peer, folder: Path, engines: Sequence[str], core: int) -> Iterator[tuple[str, int]]:
    """Run a proxy; yield its URL and process id once it answers."""
    own = folder / f"{peer.name}.d"
    own.mkdir()
    port = free_port()
    with subprocess.Popen(["taskset", "-c", str(core), *peer.start(own, engines, port)]) as process:
        try:
            await_answer(f"http://127.0.0.1:{port}/v1/models", process)
            yield f"http://127.0.0.1:{port}/v1/chat/completions", process.pid
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
    case: Case, urls: dict[Peer, tuple[str, int]], load: list[str], arguments: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Return what the load generator reported, by proxy, round by round; the order turns each round."""
    figures: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in urls}
    for number in range(arguments.rounds):
        order = list(urls) if number % 2 == 0 else list(reversed(urls))
        for peer in order:
            url, pid = urls[peer]
            command = [*load, *case.load, "-url", url, "-pid", str(pid), "-seconds", str(arguments.seconds)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            figures[peer.name].append(json.loads(done.stdout))
    return figures


def report(case: Case, figures: dict[str, list[dict[str, Any]]]) -> None:
    """Print one case's table: cost in microseconds, median and range over rounds, and the ratio round by round."""
    key = f"cpuPer{case.per.capitalize()}Microseconds"
    costs = {name: [one[key] for one in rounds] for name, rounds in figures.items()}
    print(f"\n{case.name}: CPU microseconds per {case.per}")
    for name, rounds in figures.items():
        cost = costs[name]
        line = f"  {name:<10}{median(cost):>8.1f} ({min(cost):.1f} to {max(cost):.1f})"
        if name != "halffull":
            ratios = [own / other for own, other in zip(costs["halffull"], cost, strict=True)]
            line += f"   halffull costs {median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        share = median(one["coreShare"] for one in rounds)
        line += f"   core {share:.0%}, RSS {median(one['rssMebibytes'] for one in rounds):.0f} MiB"
        line += ", TOO BUSY" if share > TOO_BUSY else ""
        errors = sum(one["errors"] for one in rounds)
        print(line + (f", {errors} ERRORS" if errors else ""), flush=True)
