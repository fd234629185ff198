"""Runs an async test on virtual time: a sleep passes at once, and `loop.time()` says that it took its time."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import looptime


def on_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Decorate an async test that uses no real I/O."""

    @functools.wraps(test)
    def run(*arguments: Any, **options: Any) -> None:
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            runner.run(test(*arguments, **options))

    return run
