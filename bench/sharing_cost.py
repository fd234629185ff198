"""What sharing its books costs a router in CPU time per request: several routers that share, and as many that do not.

Called by `peers`. Engines and clients are the Go programs of `proxy`, which cost little; each router has a client of its own.
"""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

PROXY = Path(__file__).parent / "proxy"
TOKENS = 200
GAP_US = 10_000
Routers = Callable[..., Any]


def measure(
    routers: Routers, *, count: int, engines: int, rates: list[float], rounds: int, seconds: float = 6.0
) -> dict[str, Any]:
    """Return microseconds per request of all routers together, by requests per second of all together.

    `routers(folder, count, shared=...)` starts them.
    """
    if shutil.which("go") is None:
        print("cost: skipped: needs Go")
        return {}
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subprocess.run(["go", "build", "-o", f"{folder}/", "./load", "./stub"], cwd=PROXY, check=True)
        stubs = stack.enter_context(_stubs(folder, engines))
        config = {
            "version": 1, "hash": "", "modelDeployment": {"name": "m"}, "model": "m",
            "engine": {"type": "vllm", "endpoints": stubs}, "scheduling": {"policy": "sal"},
            "router": {"drain": {"acceptSeconds": 0, "seconds": 1}},
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "token").write_text("a secret")
        for rate in rates:
            pairs = []
            for number in range(rounds):
                pair = {}
                for shared in (True, False) if number % 2 else (False, True):
                    with routers(folder, count, shared=shared) as started:
                        time.sleep(1.0)
                        pair[shared] = _load(folder, started, rate / count, seconds)
                pairs.append((pair[True], pair[False]))
            ratios = [with_peers / alone for with_peers, alone in pairs]
            found[f"{rate:g}"] = {
                "shared": [a for a, _ in pairs],
                "alone": [b for _, b in pairs],
                "ratio": median(ratios),
            }
            print(f"cost at {rate:g}/s: {json.dumps(found[f'{rate:g}'])}", flush=True)
    return found


def _load(folder: Path, routers: list[dict[str, Any]], rate: float, seconds: float) -> float:
    """Run one client per router; return the CPU time of the routers per request, microseconds."""
    options = ["-stream", "-tokens", str(TOKENS), "-gap-us", str(GAP_US), "-rate", str(rate), "-c", "1000"]
    options += ["-seconds", str(seconds), "-warm-up", "4"]
    clients = [
        subprocess.Popen(
            [
                f"{folder}/load",
                "-url",
                f"http://127.0.0.1:{router['port']}/v1/chat/completions",
                "-pid",
                str(router["pid"]),
                *options,
            ],
            stdout=subprocess.PIPE,
        )
        for router in routers
    ]
    reports = [json.loads(client.communicate()[0]) for client in clients]
    if any(report["errors"] for report in reports):
        raise RuntimeError(f"requests failed: {reports}")
    return round(1e6 * sum(r["cpuSeconds"] for r in reports) / sum(r["requests"] for r in reports), 1)


@contextmanager
def _stubs(folder: Path, count: int) -> Iterator[list[str]]:
    """Engines that answer at once and cost next to nothing; their addresses."""
    with subprocess.Popen(
        [f"{folder}/stub", "-n", str(count)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        addresses: list[str] = json.loads(process.stdout.readline() if process.stdout else "")
        for address in addresses:
            urllib.request.urlopen(f"http://{address}/health", timeout=10).close()
        try:
            yield addresses
        finally:
            process.kill()
