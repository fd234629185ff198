"""`halffull router`: arguments to options, then run until told to stop. The controller and `halffull up` start it."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from halffull.api import flags
from halffull.api.router_config import EngineTarget
from halffull.engines.catalog import ENGINES
from halffull.router import heap
from halffull.router.app import ConfigMap, Options, Router
from halffull.router.http.tls import ServerTls
from halffull.router.loop import Loop
from halffull.router.peers import peering
from halffull.router.peers.peering import Peering
from halffull.router.sources import kube
from halffull.router.sources.discovery import split_address
from halffull.router.workers import Place, Workers

LOG = logging.getLogger(__name__)
LONE = ("admin_socket", "peers", "peer_socket", "reuse_port")
"""options that each of several workers has from its parent"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--host", default=flags.everywhere(), help="address to listen on (default: all)")
    parser.add_argument("--port", type=flags.port, default=8100, help="public port; 0: any free one (default: 8100)")
    parser.add_argument(
        "--admin-port", type=flags.port, default=8101, help="admin port; 0: any free one (default: 8101)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="RouterConfig document to follow, outside a cluster"
    )
    parser.add_argument("--namespace", metavar="NS", help="namespace of the ConfigMap, in a cluster")
    parser.add_argument("--config-map", metavar="NAME", help="ConfigMap whose key router.json to follow")
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="how to reach the API server (default: in-cluster)"
    )
    parser.add_argument(
        "--mounted",
        type=Path,
        metavar="DIR",
        help="directory where the ConfigMap is mounted, for starts without the API",
    )
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="directory that keeps the last endpoints")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="record requests here, without their text, for halffull simulate"
    )
    parser.add_argument(
        "--fallback-engine",
        metavar="TYPE=HOST:PORT",
        help="engine to forward to while there is no configuration (a sidecar's own pod)",
    )
    parser.add_argument(
        "--ready-file", type=Path, metavar="FILE", help="written with the ports and the process id once serving"
    )
    parser.add_argument(
        "--tls", type=Path, metavar="DIR", help="serve HTTPS with tls.crt and tls.key of this directory"
    )
    parser.add_argument(
        "--workers", type=flags.count, default=1, metavar="N", help="processes that serve the public port (default: 1)"
    )
    parser.add_argument("--reuse-port", action="store_true", help="share the public port with other processes")
    parser.add_argument(
        "--admin-socket", type=Path, metavar="FILE", help="Unix socket for the admin pages, instead of the admin port"
    )
    parser.add_argument(
        "--admin-token-file",
        type=Path,
        metavar="FILE",
        help="demand the bearer token of this file for /status, /decisions and /recording of the admin port",
    )
    parser.add_argument(
        "--peer-service", metavar="NAME", help="headless Service that lists all routers, which then share their books"
    )
    parser.add_argument(
        "--peers", metavar="ADDRESSES", help="HOST:PORT or Unix sockets of other routers, separated by commas"
    )
    parser.add_argument(
        "--peer-port", type=flags.port, metavar="PORT", help="port where other routers are listened for"
    )
    parser.add_argument("--peer-socket", type=Path, metavar="FILE", help="... and Unix socket")
    parser.add_argument(
        "--peer-token-file", type=Path, metavar="FILE", help="secret that the routers share; needed over a network"
    )
    parser.add_argument(
        "--peer-first-port", type=flags.port, default=peering.PORT, metavar="PORT",
        help=f"first port of the routers of a pod, one for each of its workers (default: {peering.PORT})",
    )  # fmt: skip
    parser.add_argument(
        "--peer-processes", type=flags.count, default=1, metavar="N", help="routers of each pod (default: 1)"
    )
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))


def run(arguments: argparse.Namespace) -> int:
    """Run the router; return the exit status."""
    logging.basicConfig(
        level=arguments.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if arguments.config is not None and arguments.config_map is not None:
        sys.stderr.write("halffull router: give --config or --config-map, not both\n")
        return 2
    lone = [f"--{name.replace('_', '-')}" for name in LONE if getattr(arguments, name)]
    if lone and arguments.workers > 1:
        sys.stderr.write(f"halffull router: {', '.join(lone)}: not with --workers, who have this from their parent\n")
        return 2
    source: ConfigMap | Path
    try:
        if arguments.config is not None:
            source = arguments.config
        elif arguments.namespace and arguments.config_map:
            api = kube.from_kubeconfig(arguments.kubeconfig) if arguments.kubeconfig else kube.in_cluster()
            source = ConfigMap(api, arguments.namespace, arguments.config_map, arguments.mounted)
        else:
            raise kube.CredentialsError("give --config FILE, or --namespace NS and --config-map NAME")
        options = Options(
            source,
            host=arguments.host,
            port=arguments.port,
            reuse_port=arguments.reuse_port,
            admin_port=arguments.admin_port,
            admin_socket=arguments.admin_socket,
            admin_token_file=arguments.admin_token_file,
            state_dir=arguments.state_dir,
            record=arguments.record,
            ready_file=arguments.ready_file,
            fallback_engine=_fallback(arguments.fallback_engine),
            traces="OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ,
            peering=_peering(arguments),
            tls=ServerTls(arguments.tls) if arguments.tls else None,
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"halffull router: {error}\n")
        return 2

    if arguments.workers > 1:
        return _run_workers(arguments)
    heap.keep_freed()

    async def serve() -> int:
        return await Router(options).run()

    return _until_ended(serve, arguments, asyncio.Runner(loop_factory=Loop))


def _until_ended(
    serve: Callable[[], Coroutine[Any, Any, int]], arguments: argparse.Namespace, runner: asyncio.Runner
) -> int:
    """Serve until told to stop; return the exit status, 1 where an address cannot be had."""
    try:
        with runner:
            return runner.run(serve())
    except OSError as error:
        place = f"--host {arguments.host} --port {arguments.port} --admin-port {arguments.admin_port}"
        sys.stderr.write(f"halffull router: {place}: {error}\n")
        return 1


def _run_workers(arguments: argparse.Namespace) -> int:
    """Run several processes; each gets the arguments that say what is routed."""
    passed = []
    for name in (
        "config",
        "namespace",
        "config_map",
        "kubeconfig",
        "mounted",
        "state_dir",
        "fallback_engine",
        "peer_service",
        "peer_token_file",
        "tls",
        "log_level",
    ):
        value = getattr(arguments, name)
        if value is not None:
            passed += [f"--{name.replace('_', '-')}", str(value)]
    place = Place(
        arguments.host,
        arguments.port,
        arguments.admin_port,
        arguments.ready_file,
        admin_token_file=arguments.admin_token_file,
        peer_port=arguments.peer_port,
        record=arguments.record,
        arguments=passed,
    )

    async def serve() -> int:
        return await Workers(place, arguments.workers).run()

    return _until_ended(serve, arguments, asyncio.Runner())


def _peering(arguments: argparse.Namespace) -> Peering | None:
    """Read the options about peers; None: the router is alone. Raises ValueError."""
    if not (arguments.peer_service or arguments.peers or arguments.peer_port is not None or arguments.peer_socket):
        return None
    return Peering(
        token_file=arguments.peer_token_file,
        port=arguments.peer_port,
        listening=arguments.peer_socket,
        service=arguments.peer_service,
        fixed=peering.addresses(arguments.peers or ""),
        first_port=arguments.peer_first_port,
        processes=arguments.peer_processes,
    )


def _fallback(text: str | None) -> EngineTarget | None:
    """Read TYPE=HOST:PORT. Raises ValueError."""
    if text is None:
        return None
    kind, _, place = text.partition("=")
    if not place:
        raise ValueError(f"--fallback-engine: {text!r} is not TYPE=HOST:PORT")
    if kind not in ENGINES:
        raise ValueError(f"--fallback-engine: {kind!r} is not allowed; allowed: {', '.join(ENGINES)}")
    try:
        split_address(place, 0)
    except ValueError as error:
        raise ValueError(f"--fallback-engine: {error}") from error
    return EngineTarget(type=kind, endpoints=(place,))
