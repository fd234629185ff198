"""A network that scenarios can cut: each process in a network namespace of its own, all on a bridge in one of ours.

Used by scenario partition. Nothing of the machine's own network is touched. Needs root, and `ip`, `unshare`, `nsenter`.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

BRIDGE = "hub"
NET = "10.213.0"
CLONE_NEWNET = 0x40000000
WAIT = 'until ip link show eth0 up >/dev/null 2>&1; do sleep 0.02; done; ip link set lo up; exec "$@"'


class NoNetworkError(Exception):
    """Namespaces cannot be made here; says why."""


def ip(*words: str, inside: int | None = None) -> None:
    """Run `ip`, in the namespace of a process. Raises NoNetworkError."""
    enter = [] if inside is None else ["nsenter", "-t", str(inside), "-n"]
    try:
        subprocess.run([*enter, "ip", *words], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoNetworkError(f"ip {' '.join(words)}: {getattr(error, 'stderr', '') or error}") from error


class Network:
    """The bridge and what is joined to it."""

    prefix = ("unshare", "-n", "sh", "-c", WAIT, "sh")
    """a command after this begins once `joining` gave it its interface"""

    def __init__(self) -> None:
        self._numbers = count(2)
        ip("link", "set", "lo", "up")
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{NET}.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")

    def joining(self) -> tuple[str, Callable[[int], None]]:
        """Return the address of the next process to join, and what joins it, by its process id."""
        number = next(self._numbers)
        address = f"{NET}.{number}"

        def join(pid: int) -> None:
            ours = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{pid}/ns/net").readlink() == ours:  # `unshare` has just begun
                pass
            ip("link", "add", port(address), "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            ip("link", "set", port(address), "master", BRIDGE, "up")
            ip("addr", "add", f"{address}/24", "dev", "eth0", inside=pid)
            ip("link", "set", "eth0", "up", inside=pid)

        return address, join

    @contextmanager
    def cut(self, one: str, other: str) -> Iterator[None]:
        """Within this context nothing passes between these two addresses; nobody is told."""
        for address in (one, other):
            ip("link", "set", port(address), "type", "bridge_slave", "isolated", "on")
        try:
            yield
        finally:
            for address in (one, other):
                ip("link", "set", port(address), "type", "bridge_slave", "isolated", "off")


def port(address: str) -> str:
    """Name of the bridge's port of an address."""
    return f"v{address.rpartition('.')[2]}"


@contextmanager
def network() -> Iterator[Network]:
    """A network in a namespace of its own, where this thread and what it starts are within this context.

    Raises NoNetworkError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            raise NoNetworkError(os.strerror(ctypes.get_errno()))
        try:
            yield Network()
        finally:
            if libc.setns(before, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "cannot return to the namespace of before")
    finally:
        os.close(before)
