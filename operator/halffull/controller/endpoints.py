"""Pods behind our headless Services, read from their EndpointSlices; pure. Used by `observed`, for engines and routers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod, or one fixed address."""

    name: str
    """the pod's name, or `host:port`"""
    host: str
    """an IP address or a host name"""
    port: int
    ready: bool | None
    """whether the pod is; None: a fixed address, of which only routers know"""
    terminating: bool = False

    @property
    def address(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def from_slices(slices: Iterable[Mapping[str, Any]], port_name: str, default_port: int) -> tuple[Endpoint, ...]:
    """Return the endpoints of all slices of one Service, by name; `port` is the slice's port of that name.

    A pod that stands in several slices (address families, or while the controller moves it) is listed once: IPv4 first,
    and terminating over ready, since it never ends.
    """
    found: dict[str, tuple[bool, bool, bool, Endpoint]] = {}
    for document in slices:
        family = document.get("addressType", "IPv4")
        ports = {port.get("name"): port.get("port") for port in document.get("ports") or ()}
        port = int(ports.get(port_name) or default_port)
        for entry in document.get("endpoints") or ():
            addresses = entry.get("addresses")
            if family not in {"IPv4", "IPv6"} or not addresses:
                continue
            conditions = entry.get("conditions") or {}
            target = entry.get("targetRef") or {}
            host = str(addresses[0])
            terminating = bool(conditions.get("terminating"))
            ready = conditions.get("ready", True) is not False and not terminating
            name = target["name"] if target.get("kind") == "Pod" else f"{host}:{port}"
            ranked = (family == "IPv6", not terminating, not ready, Endpoint(name, host, port, ready, terminating))
            if name not in found or ranked[:3] < found[name][:3]:
                found[name] = ranked
    return tuple(found[name][3] for name in sorted(found))


def from_addresses(addresses: Iterable[str]) -> tuple[Endpoint, ...]:
    """Return the fixed endpoints `host:port` of a ModelDeployment."""
    found = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        found.append(Endpoint(address, host.removeprefix("[").removesuffix("]"), int(port), ready=None))
    return tuple(found)
