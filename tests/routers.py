"""What tests of whole router processes share: writing a RouterConfig file, and asking the admin port."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from halffull.api.router_config import parse_router_config
from processes import Running


def write_config(path: Path, endpoints: list[str], **parts: Any) -> str:
    """Write a RouterConfig for model `m` at these endpoints, in one step; return its hash."""
    document = {
        "modelDeployment": {"name": "m"},
        "model": "m",
        "engine": {"type": "simulated", "endpoints": endpoints},
        "router": {"drain": {"acceptSeconds": 0, "seconds": 30}},
        **parts,
    }
    config = parse_router_config(json.dumps(document))[0].seal()
    fresh = path.with_suffix(".new")
    fresh.write_text(config.to_json())
    fresh.replace(path)
    return config.hash


def address(process: Running) -> str:
    """`host:port` of its public port."""
    return urlsplit(process.url).netloc


def admin(router: Running, path: str) -> str:
    """Body of `GET path` on the admin port. Raises urllib.error.HTTPError where it is no 200."""
    with urllib.request.urlopen(router.admin_url + path, timeout=30) as answer:
        return str(answer.read().decode())


def status(router: Running) -> Any:
    """The router's `/status`."""
    return json.loads(admin(router, "/status"))


def readiness(router: Running) -> int:
    """HTTP status of `/readyz`; 0 where nothing listens yet."""
    try:
        admin(router, "/readyz")
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return 0
    return 200


def ready_replicas(router: Running) -> int:
    """How many replicas the router takes for ready."""
    return sum(replica["state"] == "Ready" for replica in status(router)["replicas"])
