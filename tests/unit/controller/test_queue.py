"""The keyed queue: one at a time per key, nothing woken is lost, failures come back later. On virtual time."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

from halffull.controller.queue import KeyedQueue
from virtual_time import on_virtual_time


@contextlib.asynccontextmanager
async def running(queue: KeyedQueue[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(workers=2))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def unexpected(key: str, error: Exception) -> None:
    raise AssertionError(f"{key}: {error}")


@on_virtual_time
async def test_a_key_woken_twice_while_it_waits_runs_once() -> None:
    worked: list[str] = []

    async def work(key: str) -> None:
        worked.append(key)

    queue = KeyedQueue(work, unexpected)
    queue.wake("a")
    queue.wake("b")
    queue.wake("a")
    assert len(queue) == 2
    async with running(queue):
        await asyncio.sleep(1)

    assert worked == ["a", "b"]


@on_virtual_time
async def test_a_key_woken_while_it_runs_runs_again_but_not_beside_itself() -> None:
    running_now, most, worked = 0, 0, 0

    async def work(_: str) -> None:
        nonlocal running_now, most, worked
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(1)
        running_now -= 1
        worked += 1

    queue = KeyedQueue(work, unexpected)
    async with running(queue):
        queue.wake("a")
        await asyncio.sleep(0.5)
        queue.wake("a")
        queue.wake("a")
        await asyncio.sleep(5)

    assert (worked, most) == (2, 1)


@on_virtual_time
async def test_a_failure_comes_back_with_doubling_pauses() -> None:
    times: list[float] = []
    failures: list[str] = []

    async def work(_: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 4:
            raise ValueError("no")

    queue = KeyedQueue(work, lambda key, error: failures.append(f"{key}: {error}"))
    async with running(queue):
        queue.wake("a")
        await asyncio.sleep(100)

    assert [round(b - a, 3) for a, b in itertools.pairwise(times)] == [0.5, 1.0, 2.0]
    assert failures == ["a: no"] * 3


@on_virtual_time
async def test_one_key_does_not_wait_for_another_that_is_stuck() -> None:
    done = asyncio.Event()

    async def work(key: str) -> None:
        if key == "stuck":
            await asyncio.sleep(1000)
        done.set()

    queue = KeyedQueue(work, unexpected)
    async with running(queue):
        queue.wake("stuck")
        queue.wake("b")
        await asyncio.wait_for(done.wait(), 1)


@on_virtual_time
async def test_of_several_delays_the_earliest_holds() -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def work(_: str) -> None:
        times.append(loop.time())

    queue = KeyedQueue(work, unexpected)
    async with running(queue):
        start = loop.time()
        queue.wake_later("a", 30)
        queue.wake_later("a", 2)
        queue.wake_later("a", 9)
        await asyncio.sleep(100)

    assert [round(t - start) for t in times] == [2]
