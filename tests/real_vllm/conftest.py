"""A router process before real vLLMs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from processes import Running, running
from routers import ready_replicas, status, write_config
from vllms import SEQUENCES, Vllm


@pytest.fixture
def start_router(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts `halffull router` before engines, with further parts of its configuration."""
    with ExitStack() as stack:

        def start(engines: list[Vllm], engine: dict[str, Any] | None = None, **parts: Any) -> Running:
            file = tmp_path / "config.json"
            addresses = [vllm.address for vllm in engines]
            target = {"type": "vllm", "endpoints": addresses, "limits": {"maxSequences": SEQUENCES}} | (engine or {})
            write_config(file, addresses, **{"model": "tiny", "engine": target} | parts)
            router = stack.enter_context(running(tmp_path / "router", "router", "--config", str(file)))
            deadline = time.monotonic() + 60
            while ready_replicas(router) < len(engines):
                assert time.monotonic() < deadline, status(router)
                time.sleep(0.05)
            return router

        yield start
        if (tmp_path / "router" / "log").exists():
            sys.stdout.write((tmp_path / "router" / "log").read_text())  # shown where the test fails
