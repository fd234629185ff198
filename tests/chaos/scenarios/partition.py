"""F11: the network between a router and an engine is cut, then between the router and its peer."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from chaos.crowd import Crowd, Service
from chaos.network import Network, NoNetworkError, network
from chaos.questions import MODEL, Mix, Questions
from chaos.record import Record
from chaos.stage import ENGINE, Child, LeftOutError, Stage, configured, page, ready, states, until

PEERS = 8102
LOADS = ("InFlight", "PrefillTokens", "DecodeTokens")


async def play(stage: Stage, record: Record) -> None:
    """Two routers that are peers, three engines, each in a network namespace of its own."""
    try:
        with network() as net:
            await _play(stage, record, net)
    except NoNetworkError as error:
        raise LeftOutError(str(error)) from error


async def _play(stage: Stage, record: Record, net: Network) -> None:
    config, token = stage.folder / "config.json", stage.folder / "token"
    token.write_text("a secret")
    async with AsyncExitStack() as stack:

        async def start(command: str, address: str, *options: str) -> Child:
            join = joins[address]
            return await stack.enter_async_context(
                stage.child(command, *options, prefix=net.prefix, host=address, begun=join)
            )

        joins = dict(net.joining() for _ in range(5))
        one, other, *places = joins
        engines = [await start("engine", place, "--model", MODEL, *ENGINE) for place in places]
        configured(config, [engine.address for engine in engines])
        peers = [
            "--peers",
            f"{one}:{PEERS},{other}:{PEERS}",
            "--peer-token-file",
            str(token),
            "--peer-port",
            str(PEERS),
        ]
        routers = [await start("router", place, "--config", str(config), *peers) for place in (one, other)]
        for router in routers:
            await until(router.admin_url, lambda status: ready(status, 3) and connected(status) == 1)
        service = Service()
        following = asyncio.create_task(service.follow(lambda: [(r.url, r.admin_url) for r in routers]))
        stack.callback(following.cancel)
        await asyncio.sleep(2 * service.lag_s)
        first, sick = routers[0], engines[0]
        async with Crowd(service, Questions(18, Mix(answer_tokens=(150, 350))), rate=8) as crowd:
            await until(first.admin_url, lambda status: decoding(status, sick.address) >= 3)
            with net.cut(one, sick.host):
                await until(first.admin_url, lambda status: states(status)[sick.address] == "Down")
                apart = states(await page(routers[1].admin_url))[sick.address]
                await crowd.answered(10)
            await until(first.admin_url, lambda status: ready(status, 3))
            with net.cut(one, other):
                await until(first.admin_url, lambda status: connected(status) == 0)
                await until(first.admin_url, lambda status: not any(p["peersInFlight"] for p in status["replicas"]))
                await crowd.answered(10)
            for router in routers:
                await until(router.admin_url, lambda status: connected(status) == 1)
            await crowd.answered(20)
        record.take(crowd)
        await record.read(*(router.admin_url for router in routers))
        rest = [await until(router.admin_url, lambda status: not sum(loads(status))) for router in routers]
    record.nothing_failed()
    record.goal("the other router went on with the engine", apart == "Ready")
    record.goal("streams went on elsewhere", record.continued)
    record.goal("the books agree, and end empty", len(rest) == len(routers))


def connected(status: Any) -> int:
    """How many peers a router has."""
    return len(status["peers"]["connected"])


def decoding(status: Any, replica: str) -> int:
    """How many streams a router has under way at a replica."""
    return sum(page["decoding"] for page in status["replicas"] if page["name"] == replica)


def loads(status: Any) -> list[int]:
    """All that a router counts, its own and its peers'."""
    own = [name[0].lower() + name[1:] for name in LOADS]
    return [replica[key] for replica in status["replicas"] for key in (*own, *(f"peers{name}" for name in LOADS))]
