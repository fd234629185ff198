"""What a simulated engine counts: filled by `pace` and the server, shown by `exposition`.

Plain counters and cheap histograms that take many equal observations at once. Gauges lag, as seen on a live vLLM (0.3 s to
more than 1 s): they show the state of `lag` seconds ago.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from halffull.sim.engine_model import EngineSequence, Outcome

TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
SMALL = (1, 2, 5, 10, 20)
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1),
    *(2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)


class Histogram:
    """Counts per bucket; `observe` takes many equal values at once."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(float(bound) for bound in bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `times` observations of `value`."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Times(Protocol):
    """When what happened to a sequence, seconds of one clock."""

    arrived: float
    admitted: float | None
    first: float | None
    reason: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Gauges:
    """The engine's state at one moment."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0


class EngineMetrics:
    """Everything since the engine's start. Times are seconds of the clock whose readings the caller passes."""

    def __init__(self, max_model_len: int, lag: float) -> None:
        self._lag = lag
        self._past: deque[tuple[float, Gauges]] = deque()
        self.preemptions = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.finished: Counter[str] = Counter()
        """ended sequences by finish reason"""
        self.rejected = 0
        """requests refused because too many were in flight"""
        tokens = [bound for bound in TOKENS if bound <= max_model_len]
        self.prompt = Histogram(tokens)
        self.generation = Histogram(tokens)
        self.max_tokens = Histogram(tokens)
        self.computed = Histogram(tokens)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.answers = Histogram(SMALL)
        self.request_preemptions = Histogram(PREEMPTIONS)
        self.first_token = Histogram(FIRST_TOKEN)
        self.token_gap = Histogram(PER_TOKEN)
        self.per_token = Histogram(PER_TOKEN)
        self.end_to_end = Histogram(LATENCY)
        self.queue_time = Histogram(LATENCY)
        self.inference_time = Histogram(LATENCY)
        self.prefill_time = Histogram(LATENCY)
        self.decode_time = Histogram(LATENCY)

    def record(self, now: float, gauges: Gauges) -> None:
        """Note the state of this moment, to be shown `lag` seconds later."""
        self._past.append((now, gauges))
        self._forget(now)

    def gauges(self, now: float) -> Gauges:
        """Return the state as a scrape at `now` sees it."""
        self._forget(now)
        visible = self._past and self._past[0][0] <= now - self._lag
        return self._past[0][1] if visible else Gauges()

    def step(self, outcome: Outcome, seconds: float) -> None:
        """Count one step that took `seconds`."""
        tokens = outcome.decoded_tokens + len(outcome.prefilled)
        self.generated_tokens += tokens
        self.preemptions += len(outcome.preempted)
        self.step_tokens.observe(outcome.prefill_tokens + tokens)
        if outcome.decoded_tokens:
            self.token_gap.observe(seconds, outcome.decoded_tokens)

    def started(self, sequence: EngineSequence, seconds: float) -> None:
        """Count a first token that came `seconds` after its request."""
        self.first_token.observe(seconds)
        self.prompt_tokens += sequence.prompt_tokens
        self.cached_tokens += sequence.cached_tokens

    def ended(self, sequence: EngineSequence, times: Times, now: float) -> None:
        """Count a sequence that has all its tokens."""
        self.finished[times.reason] += 1
        admitted = times.arrived if times.admitted is None else times.admitted
        first = now if times.first is None else times.first
        self.prompt.observe(sequence.prompt_tokens)
        self.generation.observe(sequence.generated)
        self.max_tokens.observe(times.max_tokens)
        self.computed.observe(sequence.prompt_tokens - sequence.cached_tokens)
        self.request_preemptions.observe(sequence.preemptions)
        self.end_to_end.observe(now - times.arrived)
        self.queue_time.observe(admitted - times.arrived)
        self.inference_time.observe(now - admitted)
        self.prefill_time.observe(first - admitted)
        self.decode_time.observe(now - first)
        if sequence.generated > 1:
            self.per_token.observe((now - first) / (sequence.generated - 1))

    def _forget(self, now: float) -> None:
        """Drop what is older than the newest state that a scrape may see."""
        past = self._past
        while len(past) > 1 and past[1][0] <= now - self._lag:
            past.popleft()
