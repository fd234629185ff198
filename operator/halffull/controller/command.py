"""`halffull operator`: arguments to options, then run until told to stop. The chart's Deployment starts it."""

import argparse
import asyncio
import json
import logging
import os
import secrets
import socket
import sys
from pathlib import Path

from kubernetes.aio.config import ConfigException

from halffull.api import flags
from halffull.controller.app import Options
from halffull.controller.app import run as run_operator
from halffull.controller.child import Settings
from halffull.controller.external_metrics import Serving
from halffull.controller.names import Key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="how to reach the API server (default: in-cluster)"
    )
    parser.add_argument(
        "--namespace", action="append", default=[], metavar="NS", help="watch this namespace; repeat (default: all)"
    )
    parser.add_argument("--router-image", required=True, metavar="IMAGE", help="image of routers and simulated engines")
    parser.add_argument(
        "--patch-adopted-workloads",
        action="store_true",
        help="allow sidecars in Deployments and StatefulSets that are not ours",
    )
    parser.add_argument(
        "--lease", default="default/halffull-operator", metavar="NS/NAME", help="Lease by which one operator is chosen"
    )
    parser.add_argument("--host", default=flags.everywhere(), help="address to listen on (default: all)")
    parser.add_argument(
        "--port",
        type=flags.port,
        default=8080,
        help="port of /metrics, /healthz and /readyz; 0: any free one (default: 8080)",
    )
    parser.add_argument(
        "--external-metrics",
        type=Path,
        metavar="DIR",
        help="serve external.metrics.k8s.io with tls.crt and tls.key of this folder (default: not)",
    )
    parser.add_argument(
        "--external-metrics-port",
        type=flags.port,
        default=8443,
        metavar="PORT",
        help="... on this port (default: 8443)",
    )
    parser.add_argument(
        "--ready-file", type=Path, metavar="FILE", help="written with port and process id once the port is served"
    )
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--log-format", default="text", choices=("text", "json"))


def run(arguments: argparse.Namespace) -> int:
    """Run the operator; return the exit status."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if arguments.log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=arguments.log_level.upper(), handlers=[handler], force=True)
    logging.getLogger("kubernetes.aio.leaderelection").setLevel("CRITICAL")  # `leader` says the same with the reason
    namespace, found, name = arguments.lease.partition("/")
    if not found or not namespace or not name:
        sys.stderr.write(f"halffull operator: --lease: {arguments.lease!r} is not NS/NAME\n")
        return 2
    certificate = arguments.external_metrics
    options = Options(
        Settings(arguments.router_image, arguments.patch_adopted_workloads),
        # a pod restarts under its name: only the random part tells its processes apart
        identity=f"{os.environ.get('POD_NAME') or socket.gethostname()}_{secrets.token_hex(4)}",
        lease=Key(namespace, name),
        kubeconfig=arguments.kubeconfig,
        namespaces=tuple(arguments.namespace),
        host=arguments.host,
        port=arguments.port,
        external_metrics=certificate and Serving(certificate, arguments.host, arguments.external_metrics_port),
        ready_file=arguments.ready_file,
    )
    try:
        asyncio.run(run_operator(options))
    except ConfigException as error:
        sys.stderr.write(
            f"halffull operator: {arguments.kubeconfig or 'not in a cluster, and no --kubeconfig'}: {error}\n"
        )
        return 2
    except OSError as error:  # a port that is taken, or a certificate that is not there
        sys.stderr.write(f"halffull operator: --port {arguments.port}{_serving(certificate, arguments)}: {error}\n")
        return 1
    return 0


def _serving(certificate: Path | None, arguments: argparse.Namespace) -> str:
    """The options of the external-metrics API, where it is served."""
    if certificate is None:
        return ""
    return f" --external-metrics {certificate} --external-metrics-port {arguments.external_metrics_port}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
