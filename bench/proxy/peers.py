"""The proxies that are measured, each on one core with one worker, and how each is configured."""

import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from halffull.api.router_config import EngineTarget, RouterConfig, Source
from halffull.api.scheduling import Scheduling


@dataclass(frozen=True)
class Peer:
    """One proxy."""

    name: str
    program: str
    """what must be on PATH for it to be measured"""
    start: Callable[[Path, Sequence[str], int], list[str]]
    """from a folder of its own, the engines' addresses and the port to listen on: its command line"""
    configured: str
    """what is switched on, for the report"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def halffull(folder: Path, engines: Sequence[str], port: int) -> list[str]:
    document = RouterConfig(
        model_deployment=Source(name="bench"),
        model="m",
        engine=EngineTarget(endpoints=tuple(engines)),
        scheduling=Scheduling(policy="sal"),
    )
    config = folder / "router.json"
    config.write_text(document.seal().to_json())
    return [
        *(sys.executable, "-m", "halffull", "router", "--config", str(config), "--host", "127.0.0.1"),
        *("--port", str(port), "--admin-port", "0", "--log-level", "error"),
    ]


def haproxy(folder: Path, engines: Sequence[str], port: int) -> list[str]:
    servers = "".join(f"  server s{number} {address}\n" for number, address in enumerate(engines))
    config = folder / "haproxy.cfg"
    config.write_text(
        f"""global
  nbthread 1
  maxconn 8192
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend public
  bind 127.0.0.1:{port}
  default_backend engines
backend engines
  balance leastconn
{servers}"""
    )
    return ["haproxy", "-db", "-q", "-f", str(config)]


PEERS = (
    Peer(
        "halffull",
        sys.executable,
        halffull,
        "policy sal, gate limit, books, metrics, scrapes each second, decision log",
    ),
    Peer("haproxy", "haproxy", haproxy, "leastconn, one thread, no log, no statistics"),
)
