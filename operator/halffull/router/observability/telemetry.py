"""Plain counters of the data path. `proxy` and `passage` increment them; `metrics` and `status` read them when somebody asks."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from halffull.core.books import Replica
from halffull.core.exchange import Exchange
from halffull.core.values import Request

TTFT_BUCKETS = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
)
"""seconds"""
TPOT_BUCKETS = (0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
"""seconds per token after the first"""
DELAY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""seconds that a timer of the event loop was late, or the garbage collector took"""
RECENT = 512
"""first tokens per replica that percentiles in `/status` are taken of"""


class Histogram:
    """Counts per bucket; the last one is what exceeds all bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class ReplicaCounters:
    """What went through one replica."""

    __slots__ = ("failures", "generated_tokens", "prompt_tokens", "recent_ttft", "requests", "tpot", "ttft")

    def __init__(self) -> None:
        self.requests = 0
        """times a request was given to it"""
        self.failures = 0
        """times it refused one, could not be reached or broke off"""
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.ttft = Histogram(TTFT_BUCKETS)
        """from the arrival at the router to the first token of streamed answers"""
        self.tpot = Histogram(TPOT_BUCKETS)
        self.recent_ttft: deque[tuple[float, float]] = deque(maxlen=RECENT)
        """(when, seconds) of the last first tokens"""

    def first_token(self, now: float, ttft_s: float) -> None:
        """A streamed answer started `ttft_s` after its request arrived."""
        self.ttft.observe(ttft_s)
        self.recent_ttft.append((now, ttft_s))

    def finished(self, prompt_tokens: int, generated_tokens: int, streaming_s: float | None) -> None:
        """An answer is complete; `streaming_s`: from its first token to its end, None where that was not seen."""
        self.prompt_tokens += prompt_tokens
        self.generated_tokens += generated_tokens
        if streaming_s is not None and generated_tokens > 1:
            self.tpot.observe(streaming_s / (generated_tokens - 1))


class Decision(NamedTuple):
    """Which replica a request was given to; holds no text."""

    at: float
    """seconds of the router's monotonic clock"""
    request_id: str
    replica: str
    attempt: int
    """1: the first replica"""
    queued_s: float
    """seconds from arrival to this decision"""
    prompt_tokens: int
    in_flight: int
    """of the replica, this request included"""
    prefill_tokens: int
    """of the replica, this request included"""


class Ended(NamedTuple):
    """How a request ended, for logs and traces; holds no text. Times are seconds of the router's monotonic clock."""

    request_id: str
    method: str
    path: str
    """one of the adapter's, so bounded"""
    status: int
    """499: the client went away"""
    reason: str
    """of an error that the router answered; empty: none"""
    replica: str
    """the last one that it was given to; empty: none"""
    attempts: int
    prompt_tokens: int
    """as the engine counted them where it said so, else the estimate"""
    generated_tokens: int
    caller: str
    """a hash"""
    traceparent: str
    arrived: float
    sent_at: float | None
    started_at: float | None
    ended_at: float
    request: Request | None = None
    """as scheduling saw it; None: it was refused before"""
    prompt_bytes: int = 0
    """of text"""
    blocks: tuple[bytes, ...] = ()
    """hashes of the prompt's blocks, while requests are recorded"""


class Telemetry:
    """All counters of one router."""

    def __init__(self, decisions: int = 1000) -> None:
        self.received = 0
        """requests read in full"""
        self.completed = 0
        """answers relayed to their end"""
        self.cancelled = 0
        """requests whose client went away"""
        self.answers: Counter[tuple[str, int]] = Counter()
        """(path, HTTP status) of every answer"""
        self.failures: Counter[str] = Counter()
        """reasons of errors that the router itself answered"""
        self.moves: Counter[str] = Counter()
        """reasons for trying another replica; `moved`: another starts it earlier, or its own leaves"""
        self.continued = 0
        """times that a started stream went on at another replica"""
        self.verdicts: Counter[tuple[str, str]] = Counter()
        """(replica, verdict) of every change of what the data path thinks of a replica"""
        self.gc_pause = Histogram(DELAY_BUCKETS)
        """how long each run of the garbage collector took"""
        self.loop_delay = Histogram(DELAY_BUCKETS)
        """how late the event loop was for its timer: what a request that comes just then waits"""
        self.replicas: dict[str, ReplicaCounters] = {}
        self.decisions: deque[Decision] = deque(maxlen=decisions)

    def of(self, replica: str) -> ReplicaCounters:
        """Return the counters of a replica."""
        found = self.replicas.get(replica)
        if found is None:
            found = self.replicas[replica] = ReplicaCounters()
        return found

    def decided(self, exchange: Exchange, replica: Replica, now: float) -> None:
        """A request was given to a replica."""
        request = exchange.request
        self.decisions.append(
            Decision(now, request.id, replica.name, exchange.attempts, now - request.arrived,
                     request.prompt_tokens, replica.in_flight, replica.prefill_tokens)
        )  # fmt: skip

    def keep(self, replicas: AbstractSet[str]) -> None:
        """Forget the counters of all other replicas, which have left: names of pods are without bound."""
        for name in self.replicas.keys() - replicas:
            del self.replicas[name]
        for key in [key for key in self.verdicts if key[0] not in replicas]:
            del self.verdicts[key]
