"""What the operator costs with many resources, and what it costs to watch many engines.

On a real API server (etcd, kube-apiserver, kube-controller-manager of tests/cluster): ModelDeployments whose engine Deployments
make the pods; there is no node, so they stay records. Then engines that answer metrics as vLLM does, in one process of their own:
an operator and a router watch them once a second, and scrapes are counted with several routers that share them.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from overload import start

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cluster import binaries
from cluster.control_plane import ControlPlane
from operators import operator

ROOT = Path(__file__).parents[1]
NAMESPACE = "measured"
TICKS = os.sysconf("SC_CLK_TCK")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resources", type=int, default=500, help="ModelDeployments (%(default)s)")
    parser.add_argument("--replicas", type=int, default=10, help="pods of each (%(default)s)")
    parser.add_argument("--engines", type=int, default=100, help="endpoints that are watched (%(default)s)")
    parser.add_argument("--routers", default="1,4,64", help="numbers of routers that share scrapes (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement (%(default)s)")
    parser.add_argument("--parts", default="resources,watch,share", help="of %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    report: dict[str, Any] = {}
    parts = {"resources": resources, "watch": watch, "share": share}
    for part in arguments.parts.split(","):
        report[part] = parts[part](arguments)
        print(json.dumps({part: report[part]}, indent=2), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


# --- many resources


def resources(arguments: argparse.Namespace) -> dict[str, Any]:
    """An operator that finds everything new, one that takes over, and what that one costs when nothing happens."""
    with ExitStack() as stack:
        cluster, folder = stack.enter_context(control_plane()), Path(stack.enter_context(tempfile.TemporaryDirectory()))
        documents = [
            {
                "apiVersion": "halffull.dev/v1alpha1", "kind": "ModelDeployment",
                "metadata": {"name": f"m{number}", "namespace": NAMESPACE},
                "spec": {"model": "m", "engine": {"type": "simulated", "template": {}}, "replicas": arguments.replicas,
                         "router": {"replicas": 1}},
            }
            for number in range(arguments.resources)
        ]  # fmt: skip
        listing = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        cluster.kubectl("create", "-f", "-", stdin=listing)
        with operator(folder / "first", cluster, "") as first:
            created_s = seconds_until(lambda: reconciled(first.port) >= arguments.resources)
        wanted = arguments.resources * arguments.replicas
        seconds_until(lambda: pods(cluster) >= wanted)
        with operator(folder / "second", cluster, "") as second:
            began = cpu_s(second.process.pid)
            resync_s = seconds_until(lambda: reconciled(second.port) >= arguments.resources)
            resync_cpu_s = cpu_s(second.process.pid) - began
            quiet(second.port)
            cores = cores_used(second.process.pid, arguments.seconds)
            return {
                "modelDeployments": arguments.resources, "pods": pods(cluster),
                "secondsToCreateAllChildren": round(created_s, 1), "secondsOfFullResync": round(resync_s, 1),
                "cpuSecondsOfFullResync": round(resync_cpu_s, 1), "coresSteady": round(cores, 3),
                "rssMiB": round(rss_mib(second.process.pid)),
            }  # fmt: skip


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane(binaries.find_all()) as cluster:
        folder = str(ROOT / "manifests" / "crds")
        cluster.kubectl("apply", "--server-side", "-f", folder)
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", folder)
        cluster.kubectl("create", "namespace", NAMESPACE)
        yield cluster


def pods(cluster: ControlPlane) -> int:
    path = f"/api/v1/namespaces/{NAMESPACE}/pods?limit=1"
    answer = json.loads(cluster.kubectl("get", "--raw", path))
    return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount", 0))


def reconciled(port: int) -> int:
    """ModelDeployments that the operator has been through, and none of them waits."""
    figures = metrics(port)
    if figures.get("halffull_operator_queue_depth", 1) or not figures.get("halffull_operator_leader"):
        return 0
    return int(figures.get("halffull_operator_reconciles_total", 0))


def quiet(port: int) -> None:
    """Wait until reconciles come no more often than rounds make them."""
    seconds_until(lambda: not metrics(port)["halffull_operator_queue_depth"])
    time.sleep(40)  # states and figures of the first rounds are written at most every 30 s


def metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


# --- many engines


def watch(arguments: argparse.Namespace) -> dict[str, Any]:
    """An operator and a router, each alone, with the same engines, once a second; nobody sends requests."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines = stack.enter_context(many_engines(arguments.engines))
        write_config(folder, engines.ports)
        router = start(stack, folder, "router", *router_options(folder))
        time.sleep(5)
        before = engines.scrapes()
        router_cores = cores_used(router["pid"], arguments.seconds)
        router_rate = (engines.scrapes() - before) / arguments.seconds / arguments.engines
        cluster = stack.enter_context(control_plane())
        cluster.apply({
            "apiVersion": "halffull.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "m", "namespace": NAMESPACE},
            "spec": {"model": "m", "engine": {"type": "simulated", "endpoints": addresses(engines.ports)},
                     "scheduling": {"rebalance": {"intervalSeconds": 1}}},
        })  # fmt: skip
        with operator(folder / "operator", cluster, NAMESPACE) as process:
            seconds_until(lambda: metrics(process.port).get('halffull_operator_scrapes_total{target="engine"}', 0) > 0)
            time.sleep(5)
            before = metrics(process.port)
            operator_cores = cores_used(process.process.pid, arguments.seconds)
            name = 'halffull_operator_scrapes_total{target="engine"}'
            operator_rate = (metrics(process.port)[name] - before[name]) / arguments.seconds / arguments.engines
            return {
                "engines": arguments.engines, "expositionBytes": len(engines.text),
                "router": {"cores": round(router_cores, 3), "scrapesPerEngineAndSecond": round(router_rate, 2)},
                "operator": {"cores": round(operator_cores, 3), "scrapesPerEngineAndSecond": round(operator_rate, 2),
                             "rssMiB": round(rss_mib(process.process.pid))},
            }  # fmt: skip


def share(arguments: argparse.Namespace) -> dict[str, Any]:
    """Scrapes that one engine gets a second, from so many routers of one ModelDeployment."""
    found = {}
    for count in (int(text) for text in arguments.routers.split(",")):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            engines = stack.enter_context(many_engines(4))
            write_config(folder, engines.ports)
            (folder / "token").write_text("a secret")
            ports = free_ports(count)
            peers = ",".join(f"127.0.0.1:{port}" for port in ports)
            routers = [
                start(stack, folder, f"router{number}", *router_options(folder), "--peers", peers, "--peer-port",
                      str(port), "--peer-token-file", str(folder / "token"))
                for number, port in enumerate(ports)
            ]  # fmt: skip
            seconds_until(lambda routers=routers, count=count: all(linked(each) == count - 1 for each in routers))
            time.sleep(5)
            before = engines.scrapes()
            cores = cores_used(routers[0]["pid"], arguments.seconds)
            rate = (engines.scrapes() - before) / arguments.seconds / 4
            found[str(count)] = {"scrapesPerEngineAndSecond": round(rate, 2), "coresOfOneRouter": round(cores, 3)}
    return found


def linked(router: dict[str, Any]) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{router['adminPort']}/status", timeout=30) as answer:
        return len(json.load(answer)["peers"]["connected"])


def write_config(folder: Path, ports: list[int]) -> None:
    document = {
        "version": 1, "hash": "", "modelDeployment": {"name": "m"}, "model": "m",
        "engine": {"type": "simulated", "endpoints": addresses(ports)},
        "router": {"drain": {"acceptSeconds": 0, "seconds": 1}},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document))


def router_options(folder: Path) -> list[str]:
    return ["router", "--admin-port", "0", "--config", str(folder / "config.json"), "--log-level", "warning"]


def addresses(ports: list[int]) -> list[str]:
    return [f"127.0.0.1:{port}" for port in ports]


class Engines:
    """Engines that serve metrics and health, in a process of their own."""

    def __init__(self, ports: list[int], text: bytes, count: Any) -> None:
        self.ports = ports
        self.text = text
        self._count = count

    def scrapes(self) -> int:
        """How often metrics were asked for, of all of them."""
        return int(self._count.value)


@contextmanager
def many_engines(number: int) -> Iterator[Engines]:
    ports = free_ports(number)
    with ExitStack() as stack:  # what an engine says, and then many say
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = start(stack, folder, "engine", "engine", "--model", "m")
        with urllib.request.urlopen(f"http://127.0.0.1:{engine['port']}/metrics", timeout=30) as answer:
            text = answer.read()
    count = multiprocessing.Value("q", 0)
    serving = multiprocessing.Event()
    process = multiprocessing.Process(target=serve, args=(ports, text, count, serving), daemon=True)
    process.start()
    try:
        if not serving.wait(60):
            raise TimeoutError("the engines do not serve")
        yield Engines(ports, text, count)
    finally:
        process.kill()
        process.join()


def serve(ports: list[int], text: bytes, count: Any, serving: Any) -> None:
    async def metrics(_: web.Request) -> web.Response:
        count.value += 1
        return web.Response(body=text, content_type="text/plain")

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def forever() -> None:
        app = web.Application()
        app.add_routes([web.get("/metrics", metrics), web.get("/v1/models", models), web.get("/health", health)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        for port in ports:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        serving.set()
        await asyncio.Event().wait()

    uvloop.run(forever())


# --- this machine


def free_ports(count: int) -> list[int]:
    """Return ports below the ephemeral ones, so that no connection takes one before its server does."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            probe, port = stack.enter_context(socket.socket()), random.randrange(20000, 30000)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def cores_used(pid: int, seconds: float) -> float:
    before = cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - before) / seconds


def seconds_until(condition: Callable[[], bool], most: float = 400.0) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + most:
            raise TimeoutError(f"not so after {most:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - began
