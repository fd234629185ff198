"""A short run of the fuzzer (`make fuzz` is the long one), and that it can fail."""

import pytest

import fuzz
from halffull.router.http.client import Client
from halffull.router.http.upstream import Upstream


async def test_mutated_streams_of_clients_and_engines() -> None:
    for seed in range(1, 17):
        await fuzz.batch(seed, fuzz.BATCH)


async def test_a_leak_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "_gone", lambda self: None)
    with pytest.raises(AssertionError, match="hangs"):
        await fuzz.batch(4, 50)


async def test_a_crash_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_body(self: Upstream, data: bytes) -> None:
        raise LookupError

    monkeypatch.setattr(Upstream, "on_body", on_body)
    with pytest.raises(AssertionError, match="LookupError"):
        await fuzz.batch(4, 50)
