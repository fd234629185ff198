"""Endpoints from EndpointSlices and addresses: conditions, families, duplicates, ports, and the difference of two sets."""

from typing import Any

import pytest

from halffull.core.values import State
from halffull.router.sources.discovery import Changes, Endpoint, difference, from_slices, split_address


def entry(name: str, address: str, **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": name}}


def piece(
    *entries: dict[str, Any], family: str = "IPv4", ports: Any = ({"name": "http", "port": 8000},)
) -> dict[str, Any]:
    return {"addressType": family, "ports": list(ports), "endpoints": list(entries)}


def states(*slices: dict[str, Any]) -> dict[str, State]:
    return {name: endpoint.state for name, endpoint in from_slices(slices, 8000).items()}


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ({}, State.READY),
        ({"ready": None}, State.READY),
        ({"ready": True, "serving": True, "terminating": False}, State.READY),
        ({"ready": False}, State.DOWN),
        ({"ready": False, "serving": True, "terminating": True}, State.DRAINING),
        ({"ready": True, "terminating": True}, State.DRAINING),
        ({"ready": False, "serving": False, "terminating": True}, State.DRAINING),
    ],
)
def test_conditions_make_the_state(conditions: dict[str, Any], state: State) -> None:
    assert states(piece(entry("a", "10.0.0.1", **conditions))) == {"a": state}


def test_a_slice_without_conditions_or_endpoints_is_read() -> None:
    bare = {"addressType": "IPv4", "ports": [{"port": 8000}], "endpoints": [{"addresses": ["10.0.0.1"]}]}
    assert from_slices([bare, {"addressType": "IPv4", "endpoints": None}], 1) == {
        "10.0.0.1:8000": Endpoint("10.0.0.1:8000", "10.0.0.1", 8000, State.READY)
    }


def test_slices_are_merged() -> None:
    assert states(piece(entry("a", "10.0.0.1")), piece(entry("b", "10.0.0.2", ready=False))) == {
        "a": State.READY,
        "b": State.DOWN,
    }


def test_of_two_entries_of_one_pod_terminating_wins_and_then_ready() -> None:
    ready, down = piece(entry("a", "10.0.0.1", ready=True)), piece(entry("a", "10.0.0.1", ready=False))
    ending = piece(entry("a", "10.0.0.1", ready=False, terminating=True))
    assert states(down, ready) == states(ready, down) == {"a": State.READY}
    assert states(ending, ready) == states(ready, ending) == {"a": State.DRAINING}


def test_ipv4_is_taken_of_two_families() -> None:
    four, six = piece(entry("a", "10.0.0.1")), piece(entry("a", "fd00::1"), family="IPv6")
    assert from_slices([six, four], 1)["a"].host == from_slices([four, six], 1)["a"].host == "10.0.0.1"
    assert from_slices([six], 1)["a"].host == "fd00::1"
    assert from_slices([piece(entry("a", "pod.example"), family="FQDN")], 1) == {}


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        ([{"name": "http", "port": 8001}, {"name": "metrics", "port": 9}], 8001),
        ([{"name": "metrics", "port": 9}, {"name": "engine", "port": 8002}], 8002),
        ([{"name": "odd", "port": 8003}], 8003),
        ([{"name": "", "port": 8004}], 8004),
        ([{"port": 8005}], 8005),
        ([{"name": "x", "port": 1}, {"name": "y", "port": 2}], 8000),
        ([{"name": "x"}], 8000),
        ([], 8000),
        (None, 8000),
    ],
)
def test_the_port_is_the_named_one_or_the_only_one_or_the_default(ports: Any, port: int) -> None:
    document = {"addressType": "IPv4", "ports": ports, "endpoints": [entry("a", "10.0.0.1")]}
    assert from_slices([document], 8000)["a"].port == port


def test_the_difference_of_two_sets() -> None:
    a, b, c = (Endpoint(name, "10.0.0.1", 1, State.READY) for name in "abc")
    b_down, c_moved = Endpoint("b", "10.0.0.1", 1, State.DOWN), Endpoint("c", "10.0.0.2", 1, State.READY)
    d = Endpoint("d", "10.0.0.4", 1, State.READY)
    have, want = {"a": a, "b": b, "c": c}, {"b": b_down, "c": c_moved, "d": d}
    assert difference(have, want) == Changes(added=(c_moved, d), changed=(b_down,), removed=("a", "c"))
    assert difference(want, want) == Changes()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.1:9", ("10.0.0.1", 9)),
        ("engine.example", ("engine.example", 8000)),
        ("[fd00::1]:9", ("fd00::1", 9)),
        ("[fd00::1]", ("fd00::1", 8000)),
        ("fd00::1", ("fd00::1", 8000)),
    ],
)
def test_addresses_are_split(text: str, place: tuple[str, int]) -> None:
    assert split_address(text, 8000) == place


@pytest.mark.parametrize("place", ["host:http", "host:0", "host:65536", "[::1]:-1", "1.2.3.4:1.5"])
def test_what_is_no_port_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="must be a number from 1 to 65535"):
        split_address(place, 8000)
