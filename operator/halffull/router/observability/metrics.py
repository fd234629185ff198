"""The router's Prometheus metrics, made of plain counters when somebody scrapes; the data path pays for none of it.

`admin` serves the registry. All names begin with `halffull_router_`. Labels are bounded: replicas of the fleet, reasons,
paths of the engine's adapter, HTTP status codes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from halffull.core.books import Replica
from halffull.core.values import State
from halffull.router.observability.status import Report
from halffull.router.observability.telemetry import Histogram, ReplicaCounters
from halffull.router.peers.sharing import Sharing

PREFIX = "halffull_router_"


def registry(report: Report) -> CollectorRegistry:
    """Return a registry with the router's metrics and those of its process."""
    made = CollectorRegistry(auto_describe=False)
    made.register(RouterCollector(report))
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    return made


class RouterCollector(Collector):
    """Reads the counters at each scrape."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        yield from self._router()
        yield from self._requests()
        yield from self._replicas()
        yield from self._latencies()

    def _router(self) -> Iterator[Metric]:
        report = self._report
        config, queue = report.config, report.dispatcher.queue
        yield _gauge("ready", "1 while the router takes requests", report.ready)
        yield _gauge("queue_requests", "requests that wait for a replica", len(queue))
        yield _gauge("queue_bytes", "bytes of request bodies that wait", queue.bytes)
        yield _gauge("client_connections", "open connections of clients", report.connections())
        info = GaugeMetricFamily(PREFIX + "config_info", "the configuration in force; 1", labels=["hash", "policy"])
        if config.current is not None:
            info.add_metric([config.current.hash, config.current.scheduling.policy], 1)
        yield info
        yield _counter("config_applied", "configurations applied", config.applied)
        yield _counter("config_refused", "configurations refused as wrong", config.refused)
        up = GaugeMetricFamily(PREFIX + "source_up", "1 while changes of it are heard of", labels=["source"])
        for source, error in report.sources.items():
            up.add_metric([source], not error)
        yield up
        yield _counter("scrapes", "scrapes of engines' metrics", report.scraper.scrapes)
        yield _counter("scrape_failures", "scrapes that failed", report.scraper.failures)
        yield _histogram("gc_pause_seconds", "how long the garbage collector stopped all", report.telemetry.gc_pause)
        yield _histogram("loop_delay_seconds", "how late the event loop was for a timer", report.telemetry.loop_delay)
        if report.sharing is not None:
            yield from _peers(report.sharing)

    def _requests(self) -> Iterator[Metric]:
        telemetry = self._report.telemetry
        yield _counter("requests_received", "requests read in full", telemetry.received)
        yield _counter("requests_completed", "answers relayed to their end", telemetry.completed)
        yield _counter("requests_cancelled", "requests whose client went away", telemetry.cancelled)
        answers = CounterMetricFamily(
            PREFIX + "answers", "answers by path and HTTP status, engines' and ours", labels=["path", "code"]
        )
        for (path, code), count in list(telemetry.answers.items()):
            answers.add_metric([path, str(code)], count)
        yield answers
        yield _by_reason("errors", "errors that the router itself answered", telemetry.failures.items())
        yield _counter("continuations", "started streams that went on at another replica", telemetry.continued)
        yield _by_reason("moves", "requests tried at another replica", telemetry.moves.items())

    def _replicas(self) -> Iterator[Metric]:
        report = self._report
        replicas = sorted(report.fleet.replicas.items())
        states = GaugeMetricFamily(PREFIX + "replicas", "replicas by state", labels=["state"])
        for state in State:
            states.add_metric([state.value], sum(replica.shown is state for _, replica in replicas))
        yield states
        for name, text, read in _REPLICA_GAUGES:
            family = GaugeMetricFamily(PREFIX + "replica_" + name, text, labels=["replica"])
            for replica_name, replica in replicas:
                value = read(replica)
                if value is not None:
                    family.add_metric([replica_name], value)
            yield family
        fresh = GaugeMetricFamily(
            PREFIX + "replica_signals_fresh", "1 where the engine's metrics are fresh", labels=["replica"]
        )
        for replica_name, replica in replicas:
            fresh.add_metric([replica_name], report.fleet.signals_state(replica) == "fresh")
        yield fresh

    def _latencies(self) -> Iterator[Metric]:
        rows = sorted(self._report.telemetry.replicas.items())
        for name, text, read in _REPLICA_COUNTERS:
            family = CounterMetricFamily(PREFIX + "replica_" + name, text, labels=["replica"])
            for replica, counters in rows:
                family.add_metric([replica], read(counters))
            yield family
        verdicts = CounterMetricFamily(
            PREFIX + "replica_verdicts",
            "times the data path came to another view of a replica",
            labels=["replica", "verdict"],
        )
        for (replica, verdict), count in sorted(self._report.telemetry.verdicts.items()):
            verdicts.add_metric([replica, verdict], count)
        yield verdicts
        yield _histograms("ttft_seconds", "arrival to first token, streamed answers", [(r, c.ttft) for r, c in rows])
        yield _histograms("tpot_seconds", "time per output token after the first", [(r, c.tpot) for r, c in rows])


_REPLICA_GAUGES: tuple[tuple[str, str, Callable[[Replica], float | None]], ...] = (
    ("in_flight", "requests sent and not finished", lambda r: r.own.load.in_flight),
    ("prefill_tokens", "uncached prompt tokens of requests without a first token", lambda r: r.own.load.prefill_tokens),
    ("decode_tokens", "prompt and streamed tokens of decoding requests", lambda r: r.own.load.decode_tokens),
    ("kv_tokens", "capacity of the KV cache in tokens", lambda r: r.kv_tokens),
    ("prefill_tokens_per_second", "learned prefill speed", lambda r: r.prefill_rate),
    ("weight", "share of slow facts, 0.1 to 1", lambda r: r.weight),
    ("suspended", "1 where it takes nothing new", lambda r: r.suspended),
)

_REPLICA_COUNTERS: tuple[tuple[str, str, Callable[[ReplicaCounters], float]], ...] = (
    ("requests", "times a request was given to the replica", lambda c: c.requests),
    ("failures", "times it refused one, could not be reached or broke off", lambda c: c.failures),
    ("prompt_tokens", "prompt tokens sent", lambda c: c.prompt_tokens),
    ("generated_tokens", "tokens generated", lambda c: c.generated_tokens),
)


def _peers(sharing: Sharing) -> Iterator[Metric]:
    counters = sharing.counters
    yield _gauge("peers_connected", "other routers that this one has a stream to", len(sharing.links))
    yield _counter("peer_messages_sent", "messages with pages of the books, to all peers", counters.told)
    yield _counter("peer_messages_received", "messages with pages of the books, from all peers", counters.heard)
    yield _counter("peer_streams_dropped", "streams that ended after the peer had proved itself", counters.dropped)
    yield _counter("peer_streams_refused", "streams that ended before", counters.refused)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _by_reason(name: str, text: str, rows: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=["reason"])
    for reason, count in list(rows):
        family.add_metric([reason], count)
    return family


def _histograms(name: str, text: str, rows: Sequence[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, text, labels=["replica"])
    for replica, histogram in rows:
        family.add_metric([replica], buckets=_cumulated(histogram), sum_value=histogram.sum)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(PREFIX + name, text, buckets=_cumulated(histogram), sum_value=histogram.sum)


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = (*map(repr, histogram.bounds), "+Inf")
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
