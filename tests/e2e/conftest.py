"""A cluster that runs pods ($KUBECONFIG) and the image to test ($IMAGE)."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.binaries import find
from e2e.live import NAMESPACE, RELEASE_NAMESPACE, Cluster, CommandError, Load


@pytest.fixture(scope="session")
def image() -> str:
    """The image to test, REPOSITORY:TAG."""
    if "IMAGE" not in os.environ:
        pytest.skip("IMAGE is not set: run `make e2e`")
    return os.environ["IMAGE"]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of $KUBECONFIG."""
    cluster = Cluster({program: find(program) for program in ("kubectl", "helm")})
    cluster.kubectl("version")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """An empty namespace for ModelDeployments."""
    cluster.kubectl("create", "namespace", NAMESPACE)
    yield NAMESPACE
    try:  # a namespace with pods in it is looked at again only after half their grace period
        cluster.kubectl("delete", "mdep", "--all", "-n", NAMESPACE)
        cluster.wait("no pod is left", lambda: not cluster.get("pods")["items"])
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


@pytest.fixture
def release(
    cluster: Cluster, image: str, root: Path, namespace: str, request: pytest.FixtureRequest
) -> Iterator[list[str]]:
    """The chart, installed with the values of its indirect parameter; the arguments that an upgrade needs again.

    Uninstalled at the end, unless a test did.
    """
    repository, _, tag = image.rpartition(":")
    arguments = ["halffull", str(root / "charts" / "halffull"), "-n", RELEASE_NAMESPACE, "--wait", "--timeout", "3m"]
    arguments += ["--set", f"image.repository={repository}", "--set", f"image.tag={tag}"]
    arguments += [word for value in getattr(request, "param", ()) for word in ("--set", value)]
    try:
        cluster.helm("install", "--create-namespace", "--take-ownership", *arguments)
    except CommandError as error:
        pytest.fail(f"{error}\n{cluster.state()}")
    else:
        yield arguments
    finally:
        if "halffull" in cluster.helm("list", "-n", RELEASE_NAMESPACE, "--all", "-q"):
            cluster.helm("uninstall", "halffull", "-n", RELEASE_NAMESPACE, "--wait")
        cluster.kubectl("delete", "namespace", RELEASE_NAMESPACE, "--timeout=120s")


@pytest.fixture
def load(cluster: Cluster, image: str) -> Callable[..., Load]:
    """Starts `halffull load` in a pod of the cluster: `load(NAME, "--model", MODEL, "--rate", ...)`."""
    numbers = iter(range(100))
    return lambda name, *arguments: Load(cluster, f"load-{next(numbers)}", image, name, *arguments)


@pytest.fixture
def timings() -> Iterator[dict[str, float]]:
    """Seconds by what took them; printed at the end (see them with -s)."""
    found: dict[str, float] = {}
    yield found
    for what, seconds in found.items():
        print(f"{what}: {seconds:.3g} s")  # noqa: T201
