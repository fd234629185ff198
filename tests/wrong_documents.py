"""The table of wrong documents: tests/cluster applies them to a real API server, tests/unit/api reads them as files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RIGHT: dict[str, dict[str, Any]] = {
    "ModelDeployment": {
        "model": "m",
        "engine": {"type": "vllm", "template": {"image": "example/engine:1"}},
        "replicas": 2,
    },
    "SchedulingPolicy": {"policy": "sal"},
}


def document(kind: str, name: str = "right", **spec: Any) -> dict[str, Any]:
    """A right document of that kind, its spec changed by a merge patch."""
    return {
        "apiVersion": "halffull.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": merged(RIGHT[kind], spec),
    }


def merged(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7386)."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


@dataclass(frozen=True)
class Wrong:
    """One row of the table."""

    title: str
    document: dict[str, Any]
    field: str
    kubectl: str
    file: str


def table() -> list[Wrong]:
    """All rows of tests/cluster/wrong_documents.yaml."""
    text = (Path(__file__).parent / "cluster" / "wrong_documents.yaml").read_text()
    return [
        Wrong(
            row["wrong"],
            merged(document(row.get("kind", "ModelDeployment"), "wrong"), row["change"]),
            row["field"],
            row.get("kubectl") or row["says"],
            row.get("file") or row["says"],
        )
        for row in yaml.safe_load(text)
    ]
