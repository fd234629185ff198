"""Which replicas there are: pure translation of EndpointSlices and of fixed addresses, and what changed since.

Used by `endpoints`, which follows the API server and the network, and by `fleet`, which changes the books.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from halffull.core.values import State

PORT_NAMES = ("http", "engine")
"""names of the port that serves requests, where a slice lists several"""
LARGEST_PORT = 65535
_FAMILIES = ("IPv4", "IPv6")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One engine as discovery sees it."""

    name: str
    """the pod's name, or `host:port` of a fixed endpoint"""
    host: str
    """an IP address"""
    port: int
    state: State
    """READY; DRAINING: terminating, nothing new is sent; DOWN: not ready"""


Endpoints = Mapping[str, Endpoint]


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference between two sets of endpoints; an endpoint whose address changed is both removed and added."""

    added: tuple[Endpoint, ...] = ()
    changed: tuple[Endpoint, ...] = ()
    """the same address in another state"""
    removed: tuple[str, ...] = ()
    """names"""


def difference(have: Endpoints, want: Endpoints) -> Changes:
    """Return what turns `have` into `want`."""
    moved = {
        name for name, e in want.items() if name in have and (have[name].host, have[name].port) != (e.host, e.port)
    }
    return Changes(
        added=tuple(e for name, e in want.items() if name not in have or name in moved),
        changed=tuple(e for name, e in want.items() if name in have and name not in moved and e != have[name]),
        removed=tuple(name for name in have if name not in want or name in moved),
    )


def from_slices(
    slices: Iterable[Mapping[str, Any]], default_port: int, port_names: Iterable[str] = PORT_NAMES
) -> dict[str, Endpoint]:
    """Return the endpoints of all slices of one Service, by name; the port is the one with the first of `port_names`.

    A pod may be in several slices: in one of each address family (IPv4 is taken), and for a moment in two of one
    family while the controller moves it; then terminating wins, since it never ends, and next ready.
    """
    found: dict[str, tuple[tuple[int, int, str], Endpoint]] = {}
    for document in slices:
        family = document.get("addressType", "IPv4")
        if family not in _FAMILIES:
            continue
        port = _port(document.get("ports"), default_port, port_names)
        for entry in document.get("endpoints") or ():
            addresses = entry.get("addresses")
            if not addresses:
                continue
            endpoint = _endpoint(entry, str(addresses[0]), port)
            rank = (_FAMILIES.index(family), _PRECEDENCE[endpoint.state], endpoint.host)
            if endpoint.name not in found or rank < found[endpoint.name][0]:
                found[endpoint.name] = (rank, endpoint)
    return {name: endpoint for name, (_, endpoint) in sorted(found.items())}


_PRECEDENCE = {State.DRAINING: 0, State.READY: 1, State.SUSPECT: 2, State.DOWN: 2}


def _endpoint(entry: Mapping[str, Any], host: str, port: int) -> Endpoint:
    conditions = entry.get("conditions") or {}
    target = entry.get("targetRef") or {}
    if conditions.get("terminating"):
        state = State.DRAINING
    elif conditions.get("ready", True) is not False:  # the API: unknown counts as ready
        state = State.READY
    else:
        state = State.DOWN
    name = target["name"] if target.get("kind") == "Pod" else address(host, port)
    return Endpoint(name, host, port, state)


def _port(ports: Any, default: int, names: Iterable[str]) -> int:
    """The port that serves requests: the named one, else the only one, else the default."""
    numbers = {port.get("name") or "": port.get("port") for port in ports or () if port.get("port")}
    for name in names:
        if name in numbers:
            return int(numbers[name])
    return int(next(iter(numbers.values()))) if len(numbers) == 1 else default


def address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str, default_port: int) -> tuple[str, int]:
    """Return host and port of `host:port`, `host` or `[v6]:port`. Raises ValueError where that is no port."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if not port:
        return host, default_port
    if not port.isdecimal() or not 1 <= int(port) <= LARGEST_PORT:
        raise ValueError(f"{text}: the port must be a number from 1 to {LARGEST_PORT}")
    return host, int(port)
