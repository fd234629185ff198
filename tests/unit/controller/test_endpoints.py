"""Endpoints from EndpointSlices: names, ports, readiness, and a pod that stands in several slices."""

from typing import Any

from halffull.controller.endpoints import Endpoint, from_addresses, from_slices


def entry(address: str, pod: str | None = "p", **conditions: bool) -> dict[str, Any]:
    target = {"targetRef": {"kind": "Pod", "name": pod}} if pod else {}
    return {"addresses": [address], "conditions": conditions, **target}


def slice_with(*entries: dict[str, Any], family: str = "IPv4", **ports: int) -> dict[str, Any]:
    listed = [{"name": name, "port": port} for name, port in ports.items()]
    return {"addressType": family, "endpoints": list(entries), "ports": listed}


def test_name_address_and_the_named_port() -> None:
    found = from_slices([slice_with(entry("10.0.0.1", ready=True), admin=8101, http=9000)], "http", 8000)

    assert found == (Endpoint("p", "10.0.0.1", 9000, ready=True),)


def test_without_a_pod_the_address_is_the_name() -> None:
    (found,) = from_slices([slice_with(entry("10.0.0.1", None))], "http", 8000)

    assert (found.name, found.ready) == ("10.0.0.1:8000", True)


def test_a_terminating_pod_is_never_ready() -> None:
    (found,) = from_slices([slice_with(entry("10.0.0.1", ready=True, terminating=True))], "http", 8000)

    assert (found.ready, found.terminating) == (False, True)


def test_a_pod_is_listed_once() -> None:
    slices = [
        slice_with(entry("fd00::1", ready=True), family="IPv6", http=8000),
        slice_with(entry("10.0.0.1", ready=True), http=8000),
        slice_with(entry("10.0.0.1", ready=False, terminating=True), http=8000),
        slice_with(entry("a.example.org", ready=True), family="FQDN", http=8000),
    ]

    (found,) = from_slices(slices, "http", 8000)

    assert (found.host, found.terminating) == ("10.0.0.1", True)


def test_fixed_addresses() -> None:
    found = from_addresses(["10.0.0.7:8000", "[fd00::7]:9000"])

    assert [(e.name, e.host, e.port, e.ready) for e in found] == [
        ("10.0.0.7:8000", "10.0.0.7", 8000, None),
        ("[fd00::7]:9000", "fd00::7", 9000, None),
    ]
    assert [e.address for e in found] == ["10.0.0.7:8000", "[fd00::7]:9000"]
