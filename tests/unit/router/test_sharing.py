"""Streams between routers that bring what no router says, or end before they began."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from halffull.core.books import Replica
from halffull.core.values import Request
from halffull.router.peers import sharing
from halffull.router.peers.link import VERSION, Hello, Link, Told, framed
from halffull.router.peers.sharing import Sharing
from in_memory import Transport, World
from scripted_engines import post


@asynccontextmanager
async def router(name: str = "one") -> AsyncIterator[tuple[World, Sharing]]:
    world = World()
    made = Sharing(
        name, world.proxy, lambda: None, token=lambda: b"secret", now=lambda: world.now, rng=random.Random(1)
    )  # fmt: skip
    yield world, made
    made.close()


@asynccontextmanager
async def two_routers(folder: Path) -> AsyncIterator[tuple[tuple[World, Sharing], tuple[World, Sharing]]]:
    """Two that share, and rest: nothing waits at either."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(router("one"))
        two = await stack.enter_async_context(router("two"))
        server = await one[1].listen(folder / "peers")
        stack.callback(server.close)
        two[1].found([folder / "peers"])
        await until(lambda: one[1].links and two[1].links)
        for world, made in (one, two):
            world.now += 0.5
            made.tick()
        yield one, two


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def sent_by(teller: tuple[World, Sharing]) -> None:
    """It places a request, and its peer is told."""
    world, made = teller
    told = made.counters.told
    world.proxy.dispatcher.arrive(Request("id", world.now, 100), world.now)
    await until(lambda: made.counters.told > told)


def message(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "data",
    [
        message(b""),
        message(b"\x90"),
        message(b"\x94\xa5hello\x01\xa2\xff\xfe\xc4\x01a"),
        message(b"\x91" * 4000),
        message(b"\xc1"),
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        framed(Hello(VERSION, "two", b"short")),
        framed(Hello(VERSION + 1, "two", b"n" * 16)),
        framed(Hello(VERSION, "one", b"n" * 16)),
        framed(Told(1, every=True, waits_s=None, pages={})),
    ],
)
async def test_a_stranger_that_says_what_cannot_be_read_is_dropped(data: bytes) -> None:
    async with router() as (_, made):
        stranger = made._accept()
        transport = Transport(stranger.connection_lost)
        stranger.connection_made(transport)
        for start in range(len(data)):
            if not transport.closed:
                stranger.data_received(data[start : start + 1])
        await asyncio.sleep(0)

        assert transport.closed
        assert not made._opening
        assert not made.links


async def test_an_address_that_is_dropped_while_it_is_dialed_leaves_nothing() -> None:
    listening = asyncio.Event()
    async with router() as (_, made):
        made._connect = lambda *_: listening.wait()
        made.found([("192.0.2.1", 1)])
        await asyncio.sleep(0)
        assert len(made._opening) == 1
        made.found([])
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert not made._opening


async def test_an_address_that_can_be_no_name_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "RETRY_S", 0.0)
    monkeypatch.setattr(sharing, "RETRY_MOST_S", 0.0)
    async with router() as (_, made):
        dialed, connect = [], made._connect

        async def counting(link: Link, address: sharing.Address) -> None:
            dialed.append(link)
            await connect(link, address)

        made._connect = counting
        made.found([("a..b", 1)])
        async with asyncio.timeout(10):
            while len(dialed) < 3:
                await asyncio.sleep(0)


async def test_replicas_that_have_left_are_forgotten() -> None:
    async with router() as (world, made):
        for number in range(100):
            replica = Replica(f"pod-{number}", "192.0.2.1", 1)
            world.proxy.add(replica)
            assert made.owns(replica)
            world.proxy.remove(replica)
            made._share_out()

        assert len(made._owners) <= 1


async def test_a_stranger_that_speaks_slowly_is_dropped_in_time() -> None:
    async with router() as (world, made):
        stranger = made._accept()
        transport = Transport(stranger.connection_lost)
        stranger.connection_made(transport)
        hello = framed(Hello(VERSION, "two", b"n" * 16))
        for start in range(len(hello) - 1):
            if not transport.closed:
                stranger.data_received(hello[start : start + 1])
            world.now += 1.0
            made.tick()

        assert transport.closed


async def test_what_a_peer_tells_is_entered_before_a_request_is_placed_and_wakes_nobody_until_then(
    tmp_path: Path,
) -> None:
    async with two_routers(tmp_path) as (one, (world, hearer)):
        heard = hearer.counters.heard
        await sent_by(one)
        for _ in range(20):
            await asyncio.sleep(0)
        assert hearer.counters.heard == heard

        world.now += 0.1
        hearer.catch_up()

        assert world.replica.foreign.in_flight == 1


async def test_what_a_peer_tells_is_entered_at_once_while_a_request_waits(tmp_path: Path) -> None:
    async with two_routers(tmp_path) as (one, (world, hearer)):
        hearer.attend()
        await sent_by(one)

        await until(lambda: world.replica.foreign.in_flight == 1)


async def test_a_request_that_waits_has_its_router_listen(tmp_path: Path) -> None:
    async with two_routers(tmp_path) as (one, (world, _)):
        world.replica.suspended = True
        world.proxy.refresh(world.replica)
        client, transport = world.connect()
        client.data_received(post(b"{}"))
        await sent_by(one)

        await until(lambda: world.replica.foreign.in_flight == 1)
        transport.close()
        await world.settle()


async def test_a_peer_that_is_lost_while_nobody_listens_is_missed_soon(tmp_path: Path) -> None:
    async with two_routers(tmp_path) as ((_, leaver), (_, other)):
        leaver.close()
        await until(lambda: not leaver.links)
        assert other.links
        for _ in range(sharing.LOOK_TICKS):
            other.tick()

        await until(lambda: not other.links)
