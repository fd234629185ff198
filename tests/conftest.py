"""Fixtures that tests of several folders share."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cluster.binaries import MissingError, find_all
from cluster.control_plane import ControlPlane
from vllms import Pool

# How long an example takes says something of the machine, not of the code.
settings.register_profile("halffull", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("halffull")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def heed_interrupts() -> None:
    """Let programs that tests start heed SIGINT: a shell that runs pytest in its background has it ignored, by children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def binaries() -> Mapping[str, Path]:
    """Paths of etcd, kube-apiserver, kube-controller-manager, kubectl and helm.

    Skips the test if one is missing; in CI that is a failure.
    """
    try:
        return find_all()
    except MissingError as error:
        if os.environ.get("CI"):
            raise
        return pytest.skip(str(error))


@pytest.fixture(scope="session")
def cluster(binaries: Mapping[str, Path]) -> Iterator[ControlPlane]:
    """A real control plane, one per test process. A test that stops its API server starts it again."""
    with ControlPlane(binaries) as control_plane:
        yield control_plane


@pytest.fixture(scope="session")
def new_namespace(cluster: ControlPlane) -> Iterator[Callable[[], str]]:
    """Makes one more namespace at each call; all are deleted at the end."""
    names = (f"test-{number}" for number in itertools.count(1))
    made: list[str] = []

    def make() -> str:
        name = next(names)
        cluster.kubectl("create", "namespace", name)
        made.append(name)
        return name

    yield make
    if made:
        cluster.kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", *made)


@pytest.fixture
def namespace(cluster: ControlPlane, new_namespace: Callable[[], str]) -> Iterator[str]:
    """A fresh namespace, whose deletion starts when the test ends."""
    name = new_namespace()
    yield name
    cluster.kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", name)


@pytest.fixture(scope="session")
def crds(cluster: ControlPlane) -> None:
    """The CustomResourceDefinitions of manifests/crds, established."""
    folder = str(ROOT / "manifests" / "crds")
    cluster.kubectl("apply", "--server-side", "-f", folder)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", folder)


@pytest.fixture(scope="session")
def helm(binaries: Mapping[str, Path]) -> Path:
    """The path of helm."""
    return binaries["helm"]


@pytest.fixture(scope="session")
def vllms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Starts real vLLMs. `HALFFULL_VLLM_SERVE` names a command that serves a model `tiny`: `serve PORT [options of vllm serve]`.

    Skips the test where it is not set; in CI, where tests on vLLM are asked for, that is a failure.
    """
    command = os.environ.get("HALFFULL_VLLM_SERVE")
    if not command:
        words = "HALFFULL_VLLM_SERVE names no command that serves a real vLLM"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    pool = Pool(command, tmp_path_factory.mktemp("vllms"))
    default = signal.signal(signal.SIGTERM, signal.default_int_handler)  # they are no children that go with us
    try:
        yield pool
    finally:
        pool.end()
        signal.signal(signal.SIGTERM, default)


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Waits until a condition holds: `eventually(lambda: ..., seconds=60)`; fails at the deadline."""

    def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"still not so after {seconds:.0f} s"
            time.sleep(0.02)

    return wait
