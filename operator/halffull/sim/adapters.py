"""The LoRA adapters of a simulated engine: which it serves, and which its requests use now. Called by `server`.

As in vLLM adapters are models of their own in its list, with the base model as parent, and a metric names those in use. What an
adapter costs is not modelled.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import Metric
from prometheus_client.registry import Collector


class Adapters(Collector):
    """The adapters, and how many requests use each."""

    def __init__(self, names: Sequence[str], slots: int) -> None:
        """`slots` are those that the GPU holds at once."""
        self.names = tuple(names)
        self._slots = slots
        self._used: Counter[str] = Counter()

    @contextmanager
    def used(self, model: str) -> Iterator[None]:
        """A request for `model`, which may be an adapter, is under way."""
        self._used[model] += 1
        try:
            yield
        finally:
            self._used[model] -= 1

    def collect(self) -> Iterator[Metric]:
        """Called by the registry: nothing where the engine has no adapters."""
        if not self.names:
            return
        running = ",".join(name for name in self.names if self._used[name])
        family = Metric("vllm:lora_requests_info", "Adapters of requests that run or wait.", "gauge")
        labels = {"max_lora": str(self._slots), "running_lora_adapters": running, "waiting_lora_adapters": ""}
        family.add_sample("vllm:lora_requests_info", labels, time.time())
        yield family
