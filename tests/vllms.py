"""Real vLLMs that tests may stop, kill and configure. Caller: the fixture `vllms`, which `make test-vllm` gives a command.

A start takes half a minute, more on a busy machine, so an engine that a test leaves alive serves the next one that asks for
the same options. The kinds differ in what matters to some tests: how they end, how they order what waits, what they tell of
their cache; none of it does anything where nothing waits.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from halffull.core.values import Signals
from halffull.engines.vllm import VLLM

START_S = 300.0
MOST = 3
"""engines at a time"""
SEQUENCES = 4
QUEUED = 12
"""requests that an engine holds, those that run among them; what comes on top is refused"""
SOURCE = Path(__file__).parents[1] / "operator"
COMMON = ("--max-num-seqs", str(SEQUENCES), "--max-num-queued-reqs", str(QUEUED))
ENVIRONMENT = {"PYTHONPATH": str(SOURCE), "VLLM_SERVER_DEV_MODE": "1", "OMP_NUM_THREADS": "1"}
"""our scheduler class; /abort_requests; engines that do not spin on each other's cores"""

MUTE = ("--scheduling-policy", "priority")
"""goes mute at SIGTERM, as vLLM does by default; orders by the priority of requests"""
DRAINS = (
    *("--shutdown-timeout", "30"),
    *("--scheduler-cls", "halffull.engines.vllm_scheduler.Larry"),
    *("--additional-config", '{"halffull": {"kappa": 1000}}'),
)
"""finishes its streams at SIGTERM; orders by `larry`"""
TELLS = (
    *("--enable-prefix-caching", "--num-gpu-blocks-override", "40"),  # 5120 tokens
    *("--kv-events-config", '{"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://*:28557"}'),
)
"""sends KV events; its cache is small"""


@dataclass(eq=False)
class Vllm:
    """One vLLM: its processes are a group of their own."""

    process: subprocess.Popen[bytes]
    port: int
    options: tuple[str, ...]
    log: Path
    ready: bool = False
    terminated: bool = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None and not self.terminated

    def signals(self) -> Signals:
        """What it says of itself now, read as router and operator read it."""
        with urllib.request.urlopen(self.url + VLLM.metrics_path, timeout=60) as answer:
            return VLLM.signals(answer.read())

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes."""
        os.killpg(self.process.pid, number)

    def terminate(self) -> None:
        """As a kubelet does: to the first process alone."""
        self.terminated = True
        self.process.terminate()

    def await_health(self) -> None:
        deadline = time.monotonic() + START_S
        while not self.ready:
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/health", timeout=5):
                self.ready = True
                return
            assert self.alive, f"vLLM ended: {self.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"vLLM is not ready: {self.log.read_text()[-3000:]}"
            time.sleep(0.3)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()


@dataclass
class Pool:
    """Starts engines, and lends those that still live."""

    command: str
    folder: Path
    engines: list[Vllm] = field(default_factory=list)
    started: int = 0

    def lend(self, *wanted: tuple[str, ...]) -> list[Vllm]:
        """One engine for each tuple of options, ready to serve."""
        for engine in self.engines:
            if not engine.alive:
                engine.end()
        self.engines = [engine for engine in self.engines if engine.alive]
        found: list[Vllm] = []
        for options in wanted:
            free = (e for e in self.engines if e.options == options and e not in found)
            found.append(next(free, None) or self._start(options, found))
            if self.started == 1:  # the very first may have to make what all load
                found[0].await_health()
        for engine in found:
            engine.await_health()
        return found

    def end(self) -> None:
        for engine in self.engines:
            engine.end()

    def _start(self, options: tuple[str, ...], kept: list[Vllm]) -> Vllm:
        others = [engine for engine in self.engines if engine not in kept]
        while len(self.engines) >= MOST and others:
            self.engines.remove(others[0])
            others.pop(0).end()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.started += 1
        log = self.folder / f"vllm-{self.started}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.command, str(port), *COMMON, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | ENVIRONMENT,
                start_new_session=True,
            )
        engine = Vllm(process, port, options, log)
        self.engines.append(engine)
        return engine
