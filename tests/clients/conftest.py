"""A router before two engines that serve the model `tiny`: simulated ones, or real vLLMs."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from halffull.api.engine import EngineLimits
from halffull.api.router_config import EngineTarget, RouterConfig, Source
from halffull.core.values import Signals
from halffull.engines.catalog import ENGINES
from processes import running
from vllms import DRAINS, MUTE, SEQUENCES

MODEL = "tiny"
REAL = (pytest.mark.vllm, pytest.mark.timeout(900))


@dataclass(frozen=True)
class Fleet:
    """Two engines of one type."""

    type: str
    urls: tuple[str, ...]
    sequences: int | None = None
    """how many each runs at once; None: its default"""

    def signals(self) -> list[Signals]:
        """What each engine says of itself now, read as router and operator read it."""
        adapter = ENGINES[self.type]
        found = []
        for url in self.urls:
            with urllib.request.urlopen(url + adapter.metrics_path, timeout=30) as answer:
                found.append(adapter.signals(answer.read()))
        return found

    @property
    def idle(self) -> bool:
        return all(signals.running == 0 and signals.waiting == 0 for signals in self.signals())


@dataclass(frozen=True)
class RunningRouter:
    """A router process: its public and its admin address, the file it follows."""

    url: str
    admin_url: str
    config_file: Path
    config: RouterConfig

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.admin_url + "/status", timeout=30) as answer:
            document: dict[str, Any] = json.load(answer)
            return document

    def replicas(self) -> list[dict[str, Any]]:
        """The replicas in `/status`, in order of their names."""
        replicas: list[dict[str, Any]] = self.status()["replicas"]
        return replicas

    def write(self, config: RouterConfig) -> None:
        """Replace the file that the router follows."""
        partial = self.config_file.with_suffix(".partial")
        partial.write_text(config.to_json())
        partial.replace(self.config_file)


@pytest.fixture(scope="session", params=["simulated", pytest.param("vllm", marks=REAL)])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two engines."""
    if request.param == "vllm":
        engines = request.getfixturevalue("vllms").lend(MUTE, DRAINS)
        yield Fleet("vllm", tuple(engine.url for engine in engines), SEQUENCES)
        return
    folder = tmp_path_factory.mktemp("engines")
    options = ["--model", MODEL, "--max-model-len", "4096", "--speedup", "4"]
    with ExitStack() as stack:
        engines = [stack.enter_context(running(folder / str(number), "engine", *options)) for number in range(2)]
        yield Fleet("simulated", tuple(engine.url for engine in engines), SEQUENCES)


@pytest.fixture(scope="session")
def router(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    """`halffull router` before the engines."""
    folder = tmp_path_factory.mktemp("router")
    config = RouterConfig(
        model_deployment=Source(name="clients"),
        model=MODEL,
        engine=EngineTarget(
            type=fleet.type,
            endpoints=tuple(urlsplit(url).netloc for url in fleet.urls),
            limits=EngineLimits(max_sequences=fleet.sequences),
        ),
    ).seal()
    file = folder / "router.json"
    file.write_text(config.to_json())
    with running(folder / "process", "router", "--config", str(file)) as process:
        yield RunningRouter(process.url, process.admin_url, file, config)
