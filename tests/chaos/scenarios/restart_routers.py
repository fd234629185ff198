"""F4: a rolling restart of all routers behind a Service that hears of it a second late."""

import asyncio
import signal
import socket
from contextlib import AsyncExitStack

from chaos.crowd import Crowd, Service
from chaos.questions import MODEL, Mix, Questions
from chaos.record import Record
from chaos.stage import ENGINE, Child, Stage, configured, page, ready, until

ROUTERS = 3


async def play(stage: Stage, record: Record) -> None:
    """Each is told to stop once its successor is ready, as a Deployment does; all are peers."""
    config, token = stage.folder / "config.json", stage.folder / "token"
    token.write_text("a secret")
    ports = free_ports(2 * ROUTERS)
    everybody = ",".join(f"127.0.0.1:{port}" for port in ports)
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(stage.child("engine", "--model", MODEL, *ENGINE)) for _ in range(3)]
        configured(config, [engine.address for engine in engines])

        async def start(peer_port: int) -> Child:
            options = ["--config", str(config), "--peers", everybody, "--peer-token-file", str(token)]
            router = await stack.enter_async_context(
                stage.child("router", *options, "--peer-port", str(peer_port), "--log-level", "warning")
            )
            await until(router.admin_url, lambda status: ready(status, 3))
            return router

        routers = [await start(port) for port in ports[:ROUTERS]]
        service = Service()
        following = asyncio.create_task(service.follow(lambda: [(r.url, r.admin_url) for r in routers]))
        stack.callback(following.cancel)
        await asyncio.sleep(2 * service.lag_s)
        statuses = []
        async with Crowd(service, Questions(6, Mix()), rate=10) as crowd:
            await crowd.answered(10)
            for old, port in list(zip(list(routers), ports[ROUTERS:], strict=True))[: 1 if record.short else ROUTERS]:
                routers.append(await start(port))
                await crowd.seconds(2 * service.lag_s)
                await record.read(old.admin_url)
                old.signal(signal.SIGTERM)
                statuses.append(await old.ended())
                routers.remove(old)
            await crowd.answered(10)
        record.take(crowd)
        await record.read(*(router.admin_url for router in routers))
        connected = [len((await page(router.admin_url))["peers"]["connected"]) for router in routers]
    record.nothing_failed()
    record.goal("each ended with status 0", not any(statuses))
    record.goal("the new ones are peers", connected == [ROUTERS - 1] * ROUTERS)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
