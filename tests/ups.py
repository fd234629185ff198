"""What tests of `halffull up` share: documents, the process, load before it. Fixtures are imported where they are used."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest
import yaml

START = 90.0


def document(name="llama", *, replicas=2, policy="round-robin", args=("--speedup", "20"), **spec):
    return {
        "apiVersion": "halffull.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": f"model-of-{name}",
            "engine": {"type": "simulated", "template": {"args": list(args)}},
            "replicas": replicas,
            "scheduling": {"policy": policy},
            **spec,
        },
    }


def policy_document(policy):
    return {
        "apiVersion": "halffull.dev/v1alpha1",
        "kind": "SchedulingPolicy",
        "metadata": {"name": "shared"},
        "spec": {"policy": policy},
    }


def write(file, *documents):
    """Replace the file as a careful editor does."""
    fresh = file.with_suffix(".fresh")
    fresh.write_text(yaml.safe_dump_all(documents))
    fresh.replace(file)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


class Up:
    """A `halffull up` that runs, and what it printed."""

    def __init__(self, eventually, *arguments):
        self._eventually = eventually
        self.process = subprocess.Popen(
            [sys.executable, "-m", "halffull", "up", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def text(self):
        return "\n".join(self.lines)

    def said(self, pattern, seconds=START):
        """Wait until a line matches; return the match."""
        found = []

        def look():
            found[:] = [match for line in list(self.lines) if (match := re.search(pattern, line))]
            assert found or self.process.poll() is None or self._reader.is_alive(), self.text
            return found

        try:
            self._eventually(look, seconds)
        except AssertionError as error:
            raise AssertionError(f"never said {pattern!r}:\n{self.text}") from error
        return found[-1]

    def serving(self, name="llama"):
        match = self.said(rf"^{name}: model \S+ at (\S+)/v1, .* admin (\S+)$")
        return match[1], match[2]

    def children(self):
        """Process id -> command line of the engines and routers."""
        table = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        )
        rows = [line.split(None, 2) for line in table.stdout.splitlines()]
        return {int(pid): args for pid, parent, args in rows if int(parent) == self.process.pid and "halffull" in args}

    def engines(self):
        return {pid: args for pid, args in self.children().items() if "halffull engine" in args}

    def end(self, number=signal.SIGTERM):
        """Send a signal; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join(10)
        return status


def alive(pids):
    living = set()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            living.add(pid)
    return living


@pytest.fixture
def up(eventually):
    """Starts `halffull up` with free ports; whatever it started is gone at the end."""
    started = []

    def start(*arguments, ports=("--port", "0", "--admin-port", "0")):
        started.append(Up(eventually, *arguments, *ports))
        return started[-1]

    yield start
    for each in started:
        children = each.children()
        each.end()
        each.process.stdout.close()
        eventually(lambda children=children: not alive(children))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "deployments.yaml"


@pytest.fixture
def load(eventually):
    """`halffull load` beside the test's body, from the first answer on; no request may fail."""

    def completed(admin):
        return get(f"{admin}/status")["requests"]["completed"]

    @contextlib.contextmanager
    def load(url, admin, model, *options):
        before = completed(admin)
        with loading(url, model, *options):
            eventually(lambda: completed(admin) > before + 2)
            yield
            before = completed(admin)
            eventually(lambda: completed(admin) > before + 2)

    return load


@contextlib.contextmanager
def loading(url, model, *options):
    options = options if "--trace" in options else ("--trace", "code", *options)
    command = [sys.executable, "-m", "halffull", "load", "--url", url, "--model", model, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=90)
        assert process.returncode in {0, -signal.SIGINT}, out  # the latter: it was about to end by itself
        assert re.search(r"requests +[1-9]\d* sent .* 0 failed", out), out
    finally:
        process.kill()
        process.communicate()


def replicas(admin):
    return {page["name"]: page for page in get(f"{admin}/status")["replicas"]}


def ready(admin):
    return [page["name"] for page in get(f"{admin}/status")["replicas"] if page["state"] == "Ready"]


def free_pair() -> int:
    """A port that is free like its successor."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + 1))
                return port
