"""An ordering inside vLLM: `vllm serve --scheduler-cls halffull.engines.vllm_scheduler.Larry`. See docs/engine-ordering.md.

vLLM admits what waits from the head of its queue and stops at the first request that does not fit, so the order of the queue
decides who waits. `Larry` is vLLM's own scheduler with the queue put in order between steps; all else is vLLM's.
vLLM's interface is not public: what is touched is `waiting` (and `skipped_waiting`, 0.20 to 0.26), `running`, `schedule`,
and the use of the KV cache, which stand in 0.9 to 0.33. Needs nothing of halffull but core and orderings, no third party but
vLLM; importing it without vLLM is harmless.
"""

import random
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, get_type_hints

from halffull.core.books import Books, Replica
from halffull.core.bounds import Bounds
from halffull.core.contracts import Context
from halffull.core.values import Request
from halffull.orderings.catalog import ORDERINGS

try:
    from vllm.v1.core.sched.scheduler import Scheduler
except ImportError:

    class Scheduler:  # type: ignore[no-redef]
        """Stands where vLLM's would."""

        def __init__(self, *_: object, **__: object) -> None:
            raise ImportError("halffull.engines.vllm_scheduler runs inside vLLM, which is not installed here")


try:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
except ImportError:  # before vLLM 0.10
    AsyncScheduler = Scheduler

OPTION = "halffull"
"""key of vLLM's `--additional-config` that holds the ordering's parameters"""
QUEUES = ("waiting", "skipped_waiting")
SHARE = 0.02
"""of the time that may go into ordering: a thousand requests take 10 ms, and no step may begin meanwhile"""


class _Step(NamedTuple):
    """What the last call of `schedule` gave the engine to compute."""

    at: float
    prefill_tokens: int


class _Ordered:
    """Puts the waiting queue in the order of an ordering before a step. To be mixed into a scheduler of vLLM."""

    ordering_name: str
    waiting: Any
    running: list[Any]
    kv_cache_manager: Any
    cache_config: Any
    scheduler_config: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raise ValueError where vLLM orders its queue itself, or the parameters are wrong."""
        super().__init__(*args, **kwargs)
        if str(getattr(self.scheduler_config, "policy", "fcfs")) != "fcfs":
            raise ValueError("--scheduler-cls of halffull orders the queue itself: it needs --scheduling-policy fcfs")
        config = kwargs["vllm_config"] if "vllm_config" in kwargs else args[0]
        entry = ORDERINGS[self.ordering_name]
        told = (getattr(config, "additional_config", None) or {}).get(OPTION, {})
        self._ordering = entry.make(_parameters(entry.parameters, told) if told else None)
        self._engine = Replica("engine", "", 0)
        self._engine.kv_tokens = float((self.cache_config.num_gpu_blocks or 0) * self.cache_config.block_size) or None
        books = Books()
        books.add(self._engine)
        self._context = Context(0.0, random.Random(0), books)
        self._known: dict[str, Request] = {}
        self._step = _Step(0.0, 0)
        self._order_at = 0.0

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Order what waits, then let vLLM decide."""
        now = time.time()  # the clock of `arrival_time`
        self._observe(now)
        began = time.perf_counter()
        if began >= self._order_at:
            self._order_all()
            self._order_at = began + (time.perf_counter() - began) / SHARE
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        self._step = _Step(now, _prefill_tokens(output, self.running))
        return output

    def _order_all(self) -> None:
        queues = [getattr(self, name) for name in QUEUES if hasattr(self, name)]
        for queue in queues:
            if len(queue) > 1:
                self._order(queue)
        if len(self._known) > 2 * sum(map(len, queues)):
            self._known = {r.request_id: self._request(r) for queue in queues for r in queue}

    def _observe(self, now: float) -> None:
        """Bring the books up to date: memory in use, and the speed of prefill where the last step did some."""
        engine, books = self._engine, self._context.books
        self._context.now = now
        if engine.kv_tokens is not None:
            engine.decode_tokens = int(self.kv_cache_manager.usage * engine.kv_tokens)
        began, tokens = self._step
        if tokens and self.running:  # else the engine may have rested since
            engine.sent(tokens, began)
            books.learn(engine, tokens, now)
            engine.unsent(tokens)

    def _order(self, queue: Any) -> None:
        """Sort the queue in place; ties keep their order, and what has cost work already stays in front."""
        key, context = self._ordering.key, self._context
        paid = [r for r in queue if r.num_computed_tokens or r.status.name == "PREEMPTED"]
        fresh = [r for r in queue if not (r.num_computed_tokens or r.status.name == "PREEMPTED")]
        fresh.sort(key=lambda r: (key(self._request(r), context), r.arrival_time))
        queue.clear()
        queue.extend(paid + fresh)

    def _request(self, waiting: Any) -> Request:
        """Return vLLM's request as orderings see one."""
        request = self._known.get(waiting.request_id)
        if request is None:
            request = self._known[waiting.request_id] = Request(
                id=waiting.request_id,
                arrived=waiting.arrival_time,
                prompt_tokens=waiting.num_prompt_tokens,
                max_tokens=waiting.max_tokens,
                priority=waiting.priority,
            )
        return request


def _parameters(kind: Any, told: Mapping[str, Any]) -> Any:
    """Return an ordering's parameters. Raise ValueError where one is unknown or out of its bounds."""
    hints = get_type_hints(kind, include_extras=True)
    for name, value in told.items():
        bounds = next((b for b in getattr(hints.get(name), "__metadata__", ()) if isinstance(b, Bounds)), Bounds())
        if name not in hints or not (isinstance(value, int | float) and bounds.admits(value)):
            raise ValueError(
                f"--additional-config, {OPTION}: {name}={value!r} is no parameter here or out of its bounds"
            )
    return kind(**told)


def _prefill_tokens(output: Any, running: list[Any]) -> int:
    """Return how many prompt tokens a step computes: its tokens but the one of each request that decodes."""
    scheduled = output.num_scheduled_tokens
    decoding = sum(r.request_id in scheduled and r.num_computed_tokens > r.num_prompt_tokens for r in running)
    total: int = output.total_num_scheduled_tokens - decoding
    return max(total, 0)


class Larry(_Ordered, AsyncScheduler):  # type: ignore[misc]
    """Ordering `larry` in vLLM: while memory is short, long prompts step back, and age back in."""

    ordering_name = "larry"


class LarrySync(_Ordered, Scheduler):  # type: ignore[misc]
    """The same for `--no-async-scheduling`, and for vLLM before 0.16."""

    ordering_name = "larry"
