"""Renders the chart."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.control_plane import ControlPlane

Rendered = list[dict[str, Any]]


class RenderError(ValueError):
    """Helm refused; the message is what it said."""


@pytest.fixture(scope="session")
def chart(root: Path) -> Path:
    """The folder of the chart."""
    return root / "charts" / "halffull"


@pytest.fixture(scope="session")
def render(helm: Path, chart: Path) -> Callable[..., Rendered]:
    """Renders the chart with these values as release `halffull` in namespace `halffull-system`."""

    def run(values: dict[str, Any] | None = None) -> Rendered:
        command = [helm, "template", "halffull", chart, "-n", "halffull-system", "--kube-version", "1.34.0", "-f", "-"]
        done = subprocess.run(command, input=yaml.safe_dump(values or {}), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RenderError(done.stderr)
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run


@pytest.fixture(scope="session")
def chart_namespaces(cluster: ControlPlane) -> None:
    """The namespaces that the variants name; that of the operator enforces the restricted Pod Security Standard."""
    for name in ("halffull-system", "team-a", "team-b"):
        cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", "halffull-system", "pod-security.kubernetes.io/enforce=restricted")


@pytest.fixture(scope="session")
def monitoring_crds(cluster: ControlPlane) -> None:
    """The kinds of the Prometheus Operator, which take any fields here."""
    for kind in ("PodMonitor", "ServiceMonitor"):
        plural = f"{kind.lower()}s"
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        group = "monitoring.coreos.com"
        cluster.apply(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.{group}"},
                "spec": {
                    "group": group,
                    "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural},
                    "versions": [version],
                },
            }
        )
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{plural}.{group}")
