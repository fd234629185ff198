"""Who waits in a real vLLM is served in our order: by the scheduler class, or by the priority that a router sends.

Four long answers fill the engine; then four long prompts come, then four short ones; then the long answers are given up.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from processes import Running
from real_vllm.answers import Reply, ask, client, completion, until
from routers import status
from vllms import DRAINS, MUTE, SEQUENCES, Pool, Vllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
StartRouter = Callable[..., Running]
PROMPTS = {"long": 3000, "short": 10}
LONG_FIRST = ["long"] * SEQUENCES + ["short"] * SEQUENCES
SHORT_FIRST = LONG_FIRST[::-1]


async def served(engine: Vllm, url: str, **fields: Any) -> list[str]:
    """Return which prompts got their first tokens, in this order; long ones are sent first, and with these fields."""
    order: list[str] = []

    async def follow(kind: str, number: int) -> None:
        request = completion(str(number) * PROMPTS[kind], 4)
        request[1].update(fields if kind == "long" else {})
        reply = Reply()
        asking = asyncio.create_task(ask(session, url, request, reply))
        async with asyncio.timeout(120):
            while not reply.text:
                await asyncio.sleep(0.0005)
        order.append(kind)
        await asking
        assert (reply.status, reply.error, reply.finish) == (200, None, "length")

    async with client() as session:
        filling = [asyncio.create_task(ask(session, url, completion("fill", 3500))) for _ in range(SEQUENCES)]
        await until(lambda: engine.signals().running == SEQUENCES)
        waiting = [asyncio.create_task(follow("long", number)) for number in range(SEQUENCES)]
        await until(lambda: engine.signals().waiting == SEQUENCES)
        waiting += [asyncio.create_task(follow("short", number)) for number in range(SEQUENCES)]
        await until(lambda: engine.signals().waiting == 2 * SEQUENCES)
        assert not any(task.done() for task in filling), "the long answers are too short"
        for task in filling:
            task.cancel()
        await asyncio.gather(*waiting)
        await asyncio.gather(*filling, return_exceptions=True)
    return order


async def test_the_scheduler_class_orders_the_queue(vllms: Pool) -> None:
    """`Larry` with a large kappa lets long prompts step back; vLLM as it is serves them as they came."""
    ours, plain = vllms.lend(DRAINS, MUTE)
    assert await served(plain, plain.url) == LONG_FIRST
    assert await served(ours, ours.url) == SHORT_FIRST


@pytest.mark.parametrize(("priority", "order"), [("send", SHORT_FIRST), ("keep", LONG_FIRST)])
async def test_the_priority_that_the_router_sends_orders_the_queue(
    vllms: Pool, start_router: StartRouter, priority: str, order: list[str]
) -> None:
    """`send`: the ordering's rank, whatever the client asks for. `keep`: what the client asks for."""
    (engine,) = vllms.lend(MUTE)
    scheduling = {"policy": "round-robin", "gate": "none", "ordering": "shortest-prompt"}
    router = start_router([engine], {"priority": priority}, scheduling=scheduling)
    assert await served(engine, router.url, priority=-5) == order
    assert status(router)["requests"]["failed"] == {}
