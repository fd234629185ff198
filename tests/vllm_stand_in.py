"""vLLM's scheduler as far as `halffull.engines.vllm_scheduler` meets it, for tests where there is no vLLM.

Three generations of the interface: 0.9 (no asynchronous scheduler, requests that are skipped stay in `waiting`), 0.20
(`skipped_waiting`), 0.32 (`kv_holding_waiting`, `throttle_prefills`). What is kept of the real one: its construction by
keyword, the queue's methods, admission from the head that stops at the first request that does not fit, chunked prefill,
pre-emption by recompute of the request that runs last, counters advanced within `schedule`. The same code in a real vLLM:
tests/real_vllm.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from types import ModuleType, SimpleNamespace
from typing import Any

BLOCK = 16
GENERATIONS = ("0.9", "0.20", "0.32")


class RequestStatus(Enum):
    WAITING = auto()
    RUNNING = auto()
    PREEMPTED = auto()


@dataclass(eq=False)
class Request:
    request_id: str
    arrival_time: float
    num_prompt_tokens: int
    max_tokens: int
    priority: int = 0
    status: RequestStatus = RequestStatus.WAITING
    num_computed_tokens: int = 0
    outputs: int = 0
    num_preemptions: int = 0

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + self.outputs


class FCFSRequestQueue(deque[Request]):
    def add_request(self, request: Request) -> None:
        self.append(request)

    def pop_request(self) -> Request:
        return self.popleft()

    def peek_request(self) -> Request:
        return self[0]

    def prepend_request(self, request: Request) -> None:
        self.appendleft(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        self.extendleft(requests)


@dataclass
class KVCacheManager:
    blocks: int
    held: dict[str, int] = field(default_factory=dict)

    @property
    def usage(self) -> float:
        return sum(self.held.values()) / self.blocks

    def allocate_slots(self, request: Request, tokens: int) -> bool:
        needed = -(-(request.num_computed_tokens + tokens) // BLOCK)
        others = sum(self.held.values()) - self.held.get(request.request_id, 0)
        if others + needed > self.blocks:
            return False
        self.held[request.request_id] = needed
        return True

    def free(self, request: Request) -> None:
        self.held.pop(request.request_id, None)


class Scheduler:
    """Generation 0.9; the others below."""

    def __init__(self, vllm_config: Any, kv_cache_config: Any, structured_output_manager: Any) -> None:
        self.scheduler_config = vllm_config.scheduler_config
        self.cache_config = vllm_config.cache_config
        self.kv_cache_manager = KVCacheManager(self.cache_config.num_gpu_blocks)
        self.waiting = FCFSRequestQueue()
        self.running: list[Request] = []
        self.skipped: set[str] = set()
        """requests that wait for something else than room"""

    def add_request(self, request: Request) -> None:
        self.waiting.add_request(request)

    def schedule(self) -> SimpleNamespace:
        budget: int = self.scheduler_config.max_num_batched_tokens
        scheduled: dict[str, int] = {}
        preempted = False
        for request in list(self.running):
            tokens = min(request.num_tokens - request.num_computed_tokens, budget)
            while tokens and request in self.running and not self.kv_cache_manager.allocate_slots(request, tokens):
                preempted = True
                budget += scheduled.pop(self.running[-1].request_id, 0)
                self._preempt(self.running.pop())
            if tokens and request in self.running:
                scheduled[request.request_id] = tokens
                budget -= tokens
        if not preempted:
            self._admit(budget, scheduled)
        for request in self.running:
            request.num_computed_tokens += scheduled.get(request.request_id, 0)
        return SimpleNamespace(
            num_scheduled_tokens=scheduled, total_num_scheduled_tokens=sum(scheduled.values()), preempted=preempted
        )

    def _admit(self, budget: int, scheduled: dict[str, int]) -> None:
        skipped: deque[Request] = deque()
        while self.waiting and budget and len(self.running) < self.scheduler_config.max_num_seqs:
            request = self.waiting.peek_request()
            if request.request_id in self.skipped:
                skipped.appendleft(self.waiting.pop_request())
                continue
            tokens = min(request.num_tokens, budget)
            if not self.kv_cache_manager.allocate_slots(request, tokens):
                break
            self.waiting.pop_request()
            request.status = RequestStatus.RUNNING
            self.running.append(request)
            scheduled[request.request_id] = tokens
            budget -= tokens
        self._put_back(skipped)

    def _put_back(self, skipped: deque[Request]) -> None:
        self.waiting.prepend_requests(skipped)

    def _preempt(self, request: Request) -> None:
        self.kv_cache_manager.free(request)
        request.status, request.num_computed_tokens = RequestStatus.PREEMPTED, 0
        request.num_preemptions += 1
        self.waiting.prepend_request(request)

    def update_from_output(self, output: SimpleNamespace) -> list[Request]:
        """Give a token to each request whose prompt is computed; return those that have all of theirs."""
        ended = []
        for request in list(self.running):
            if request.request_id in output.num_scheduled_tokens and request.num_computed_tokens == request.num_tokens:
                request.outputs += 1
                if request.outputs == request.max_tokens:
                    self.running.remove(request)
                    self.kv_cache_manager.free(request)
                    ended.append(request)
        return ended


class SkippingScheduler(Scheduler):
    """Generation 0.20."""

    def __init__(self, vllm_config: Any, kv_cache_config: Any, structured_output_manager: Any, block_size: int) -> None:
        super().__init__(vllm_config, kv_cache_config, structured_output_manager)
        self.skipped_waiting = FCFSRequestQueue()

    def schedule(self) -> SimpleNamespace:
        for request in list(self.skipped_waiting):
            if request.request_id not in self.skipped:
                self.skipped_waiting.remove(request)
                self.waiting.prepend_request(request)
        return super().schedule()

    def _put_back(self, skipped: deque[Request]) -> None:
        self.skipped_waiting.prepend_requests(skipped)


class HoldingScheduler(Scheduler):
    """Generation 0.32."""

    def __init__(
        self,
        vllm_config: Any,
        kv_cache_config: Any,
        structured_output_manager: Any,
        block_size: int,
        hash_block_size: int | None = None,
    ) -> None:
        super().__init__(vllm_config, kv_cache_config, structured_output_manager)
        self.kv_holding_waiting = FCFSRequestQueue()
        self.deferred_waiting: set[Request] = set()

    def schedule(self, throttle_prefills: bool = False) -> SimpleNamespace:
        return super().schedule()


def modules(generation: str) -> dict[str, ModuleType]:
    """Return what `import vllm...` finds in this generation, by name; None: it does not exist."""
    scheduler = {"0.9": Scheduler, "0.20": SkippingScheduler, "0.32": HoldingScheduler}[generation]
    names = ("vllm", "vllm.v1", "vllm.v1.core", "vllm.v1.core.sched", "vllm.v1.core.sched.scheduler")
    found: dict[str, Any] = {name: ModuleType(name) for name in names}
    found["vllm.v1.core.sched.scheduler"].Scheduler = scheduler
    found["vllm.v1.core.sched.async_scheduler"] = None
    if generation != "0.9":
        asynchronous = ModuleType("vllm.v1.core.sched.async_scheduler")
        asynchronous.AsyncScheduler = type("AsyncScheduler", (scheduler,), {})
        found["vllm.v1.core.sched.async_scheduler"] = asynchronous
    return found
