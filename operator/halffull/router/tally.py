"""What the data path counts: plain integers and lists, added to as requests go by, read when somebody scrapes or asks.

The data path adds; `metrics` and `status` read. Adding costs well under a microsecond and makes no object.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from math import ceil

TTFT_BOUNDS_S = (
    *(0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8),
    *(1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0),
)
TPOT_BOUNDS_S = (
    0.002,
    0.005,
    0.01,
    0.015,
    0.02,
    0.025,
    0.03,
    0.04,
    0.05,
    0.06,
    0.08,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    1.0,
    2.5,
)
QUEUE_BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
RECENT = 512
"""observations kept for the quantiles of /status"""
RECENT_S = 30.0


class Histogram:
    """Counts per bucket, as Prometheus' histograms have them before they are added up."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        """upper bounds, ascending; a last bucket without one follows"""
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Recent:
    """The last observations with their times, for quantiles of the last half minute."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def add(self, value: float, now: float) -> None:
        """Note one observation."""
        self._seen.append((now, value))

    def quantiles(self, wanted: Sequence[float], now: float) -> list[float | None]:
        """Return these quantiles (0 to 1, nearest rank) of the last 30 s; None where nothing was seen."""
        values = sorted(value for at, value in self._seen if at > now - RECENT_S)
        if not values:
            return [None] * len(wanted)
        return [values[max(ceil(q * len(values)) - 1, 0)] for q in wanted]


class ReplicaTally:
    """What happened at one replica since it joined."""

    __slots__ = ("not_started", "output_tokens", "prompt_tokens", "recent_ttft", "requests", "tpot", "ttft")

    def __init__(self) -> None:
        self.requests = 0
        """times a request was given to it"""
        self.not_started = 0
        """of these, those it refused or could not be reached for, so that they went elsewhere or failed"""
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.ttft = Histogram(TTFT_BOUNDS_S)
        self.tpot = Histogram(TPOT_BOUNDS_S)
        self.recent_ttft = Recent()


class Tally:
    """What happened at this router since its start."""

    def __init__(self) -> None:
        self.received = 0
        """requests whose head was read"""
        self.completed = 0
        """answers of an engine given to their end, whatever their status"""
        self.codes: Counter[int] = Counter()
        """answers by HTTP status, ours and the engines'"""
        self.failed: Counter[str] = Counter()
        """errors of our own by reason (header value); a client that went away counts as `client_gone`"""
        self.queue_wait = Histogram(QUEUE_BOUNDS_S)
        """seconds between arrival and the choice of a replica"""
        self.replicas: dict[str, ReplicaTally] = {}

    def replica(self, name: str) -> ReplicaTally:
        """The tally of one replica."""
        tally = self.replicas.get(name)
        if tally is None:
            tally = self.replicas[name] = ReplicaTally()
        return tally
