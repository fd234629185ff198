"""Keeps the router's background work going whatever happens to it; `app` and `applier` start it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

LOG = logging.getLogger(__name__)
RESTART_S = 1.0


async def again(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Run `work` until cancelled. It handles what it expects; anything else is a bug: logged, and it starts again.

    Requests go on meanwhile: a router that ended here would cut every stream that it relays.
    """
    while True:
        try:
            await work()
        except Exception:
            LOG.exception("%s failed in an unexpected way; starting it again", name)
        await asyncio.sleep(RESTART_S)
