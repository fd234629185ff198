"""The process that keeps workers going."""

import asyncio
from typing import NoReturn

import pytest

from halffull.router import workers
from halffull.router.workers import Place, Workers


async def test_a_worker_that_cannot_be_started_now_is_started_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Workers(Place("127.0.0.1", 0, 0, None), 1)
    tries = 0

    async def start(*_: str, **__: int) -> NoReturn:
        nonlocal tries
        tries += 1
        if tries == 3:
            kept._stop()
        raise BlockingIOError("no memory for another process")

    monkeypatch.setattr(workers, "RESTART_S", 0.0)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    with kept._scratch:
        async with asyncio.timeout(10):
            assert await kept._keep(0, 1) != 0

    assert tries == 3
    assert "no memory" in caplog.text
