"""The proxies that are measured, each in one process with one worker thread, and how each is configured."""

import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from halffull.api.router_config import EngineTarget, RouterConfig, Source
from halffull.api.scheduling import Scheduling


@dataclass(frozen=True)
class Place:
    """Where one proxy runs."""

    program: str
    folder: Path
    """its own"""
    engines: Sequence[str]
    """addresses"""
    port: int
    """to listen on"""
    admin: int
    """... for its own metrics, where it has any"""


@dataclass(frozen=True)
class Peer:
    """One proxy."""

    name: str
    program: str
    """found on PATH, or told by `--program`"""
    start: Callable[[Place], list[str]]
    """its command line"""
    configured: str
    """what is switched on, for the report"""
    streams_only: bool = False
    """it differs from another one in streams only"""
    tells_delay: bool = False
    """its metrics tell how late its event loop is"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def halffull(place: Place, resume: Literal["continue", "never"]) -> list[str]:
    document = RouterConfig(
        model_deployment=Source(name="bench"),
        model="m",
        engine=EngineTarget(endpoints=tuple(place.engines)),
        scheduling=Scheduling(policy="sal"),
        resume=resume,
    )
    config = place.folder / "router.json"
    config.write_text(document.seal().to_json())
    return [
        *(place.program, "-m", "halffull", "router", "--config", str(config), "--host", "127.0.0.1"),
        *("--port", str(place.port), "--admin-port", str(place.admin), "--log-level", "error"),
    ]


def haproxy(place: Place) -> list[str]:
    servers = "".join(f"  server s{number} {address}\n" for number, address in enumerate(place.engines))
    config = place.folder / "haproxy.cfg"
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
  bind 127.0.0.1:{place.port}
  default_backend engines
backend engines
  balance leastconn
{servers}"""
    )
    return [place.program, "-db", "-q", "-f", str(config)]


def nginx(place: Place) -> list[str]:
    servers = "".join(f"    server {address};\n" for address in place.engines)
    folders = "".join(
        f"  {kind}_temp_path {place.folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = place.folder / "nginx.conf"
    config.write_text(
        f"""daemon off;
master_process off;
pid {place.folder}/pid;
error_log {place.folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_requests 1000000000;
{folders}  upstream engines {{
    least_conn;
{servers}    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{place.port};
    client_max_body_size 64m;
    client_body_buffer_size 2m;
    location / {{
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
    )
    return [place.program, "-e", f"{place.folder}/error.log", "-c", str(config)]


_TYPES = "type.googleapis.com/envoy.extensions"


def envoy(place: Place) -> list[str]:
    """YAML in flow style, since every address is one more endpoint."""
    endpoints = ", ".join(
        f"{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}"
        for host, port in (address.rsplit(":", 1) for address in place.engines)
    )
    config = place.folder / "envoy.yaml"
    config.write_text(
        f"""static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {place.port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: public
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: engines, timeout: 0s}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": {_TYPES}.filters.http.router.v3.Router}}
  clusters:
  - name: engines
    type: STATIC
    lb_policy: LEAST_REQUEST
    circuit_breakers: {{thresholds: [{{max_connections: 8192, max_pending_requests: 8192, max_requests: 8192}}]}}
    load_assignment: {{cluster_name: engines, endpoints: [{{lb_endpoints: [{endpoints}]}}]}}
"""
    )
    return [place.program, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def vllm_router(place: Place) -> list[str]:
    return [
        *("env", "TOKIO_WORKER_THREADS=1", place.program, "--host", "127.0.0.1", "--port", str(place.port)),
        *("--policy", "power_of_two", "--log-level", "error", "--prometheus-port", str(place.admin)),
        *("--worker-urls", *(f"http://{address}" for address in place.engines)),
    ]


_ALL_ON = "policy sal, gate limit, books, metrics, a scrape of each engine each second, decision log"

PEERS = (
    Peer("halffull", sys.executable, partial(halffull, resume="continue"), f"{_ALL_ON}, resume: continue",
         tells_delay=True),
    Peer("halffull-never", sys.executable, partial(halffull, resume="never"), f"{_ALL_ON}, resume: never",
         streams_only=True),
    Peer("haproxy", "haproxy", haproxy, "one thread, leastconn, no log, no statistics"),
    Peer("nginx", "nginx", nginx, "one process, least_conn, keep-alive to engines, no buffering of answers, no log"),
    Peer("envoy", "envoy", envoy, "one worker, LEAST_REQUEST, the router filter alone, no log"),
    Peer("vllm-router", "vllm-router", vllm_router, "one Tokio worker, power_of_two, its own health checks"),
)  # fmt: skip
