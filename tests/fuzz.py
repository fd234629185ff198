"""Feeds the data path mutated byte streams, from clients and from engines: no crash, no hang, nothing left over.

`make fuzz` runs a million, a test runs some. A failure names the seed of its batch: `--seed SEED --streams 1` repeats it.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import time
from collections import Counter

from in_memory import ANSWER, World, parse_statuses, whole
from streams import REQUESTS, cut, mutated

BATCH = 200
"""streams on one router"""
CHECKED_BY_H11 = 20
"""one of so many answers is read by h11, which is slow"""
PLAIN = REQUESTS[7]
EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":" x"},"finish_reason":null}]}\n\n',
    b"data: [DONE]\n\n",
)
ANSWERS = [
    ANSWER,
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS)
    + b"0\r\n\r\n",
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n{}",
]


def check_requests(world: World) -> None:
    """Every write to the engine must be one whole request for an inference path."""
    for _, transport in world.engine.connections:
        for request in transport.written:
            assert whole(request), request
            assert request.startswith((b"POST /v1/", b"GET /v1/", b"DELETE /v1/")), request


async def client_stream(world: World, rng: random.Random) -> Counter[int]:
    """One client sends something near requests, and leaves at some time."""
    data = mutated(rng, b"".join(rng.choices(REQUESTS, k=rng.randrange(1, 4))), rng.randrange(5))
    client, transport = world.connect()
    leaves_early = rng.random() < 0.1
    for piece in cut(rng, data, 4):
        if transport.closed:
            break
        client.data_received(piece)
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    if not leaves_early:
        await world.settle()
    elif rng.random() < 0.5:
        client.eof_received()
    answers = b"".join(transport.written)
    transport.close()
    await world.settle()
    if leaves_early or b"HEAD" in data or rng.randrange(CHECKED_BY_H11):
        return Counter()
    return Counter(parse_statuses(answers))


async def engine_stream(world: World, rng: random.Random) -> Counter[int]:
    """The engine answers with something near an answer."""
    answer = mutated(rng, rng.choice(ANSWERS), rng.randrange(4))
    ends = rng.random() < 0.5
    world.engine.script[:] = [None if rng.random() < 0.05 else answer, ANSWER]
    world.engine.pieces = lambda data: cut(rng, data, 4) if data is answer else [data]
    world.engine.ends = lambda data: data is answer and ends
    client, transport = world.connect()
    client.data_received(PLAIN)
    await world.settle(most=40)  # an answer that is not whole is waited for until the client leaves
    transport.close()
    await world.settle()
    return Counter()


async def batch(seed: int, streams: int) -> Counter[int]:
    """Send some streams through one router. Raises AssertionError, or whatever the router raises."""
    rng = random.Random(seed)
    kind = engine_stream if seed % 4 == 0 else client_stream
    world = World()
    seen: Counter[int] = Counter()
    loop = asyncio.get_running_loop()
    crashes: list[str] = []
    loop.set_exception_handler(lambda _, context: crashes.append(str(context)))
    for _ in range(streams):
        seen += await kind(world, rng)
    assert not crashes, crashes
    assert not (left := world.leaks()), left
    check_requests(world)
    idle = world.engine._idle
    assert all(transport.closed or upstream in idle for upstream, transport in world.engine.connections), "a leak"
    assert all(upstream.transport is not None for upstream in idle), "a dead connection is kept"
    return seen


def run(seeds: list[int]) -> Counter[int]:
    """Run batches one after the other."""
    seen: Counter[int] = Counter()
    for seed in seeds:
        try:
            seen += asyncio.run(batch(seed, BATCH))
        except BaseException as error:
            raise AssertionError(f"batch with seed {seed}: {type(error).__name__}: {error}") from error
    return seen


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000_000, help="byte streams in all (default: 1000000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first batch (default: 1)")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    arguments = parser.parse_args()
    start = time.monotonic()
    batches = max(arguments.streams // BATCH, 1)
    seeds = list(range(arguments.seed, arguments.seed + batches))
    portions = [seeds[place : place + 50] for place in range(0, len(seeds), 50)]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        seen = sum(pool.imap_unordered(run, portions), Counter[int]())
    took = time.monotonic() - start
    sys.stdout.write(f"{batches * BATCH} streams in {took:.0f} s; answers read by h11: {dict(sorted(seen.items()))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
