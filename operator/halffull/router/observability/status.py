"""What a router says of itself: the document of `/status`, and whether it is ready. Reads, never changes.

`app` makes one `Report`; `admin` and `metrics` read through it, the operator and `halffull demo` over HTTP.
"""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from halffull.api.scheduling import Scheduling
from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.router.config import Config
from halffull.router.fleet import Fleet
from halffull.router.observability.telemetry import Telemetry
from halffull.router.peers import sharing as peers
from halffull.router.peers.sharing import Sharing
from halffull.router.scheduler import names_of
from halffull.router.signals.scrape import Scraper

RECENT_S = 30.0
"""first tokens of this long back make the percentiles"""


class Report:
    """One view of the router's parts."""

    def __init__(
        self,
        *,
        config: Config,
        fleet: Fleet,
        dispatcher: Dispatcher,
        telemetry: Telemetry,
        tokens: Callable[[], dict[str, Any]],
        sources: Callable[[], Mapping[str, str]],
        scraper: Scraper,
        connections: Callable[[], int],
        draining: Callable[[], bool],
        recording: Callable[[], dict[str, Any] | None],
        prefix_cache: Callable[[Replica], dict[str, Any]],
        sharing: Sharing | None,
        now: Callable[[], float],
    ) -> None:
        """Say how prompt tokens are counted, which source has which error (empty: none), how many clients are connected."""
        self.config = config
        self.fleet = fleet
        self.dispatcher = dispatcher
        self.telemetry = telemetry
        self._tokens = tokens
        self._sources = sources
        self.scraper = scraper
        self.connections = connections
        self._draining = draining
        self._recording = recording
        self._prefix_cache = prefix_cache
        self.sharing = sharing
        self.now = now

    @property
    def ready(self) -> bool:
        """Whether a valid configuration is in force and the endpoints were listed once, until drain begins."""
        return self.config.current is not None and self.fleet.listed and not self._draining()

    @property
    def sources(self) -> Mapping[str, str]:
        """What configuration and endpoints come from, and why that does not work now; empty: it does."""
        return self._sources()

    def document(self) -> dict[str, Any]:
        """Return the document of `/status`."""
        telemetry, queue = self.telemetry, self.dispatcher.queue
        return {
            "config": self._config(),
            **self._names(),
            "ready": self.ready,
            "draining": self._draining(),
            "sources": {name: {"error": error or None} for name, error in self.sources.items()},
            "peers": peers.status(self.sharing),
            "learned": {name: round(value, 4) for name, value in self.dispatcher.policy.figures().items()},
            "queue": {"requests": len(queue), "bytes": queue.bytes},
            "replicas": [self._replica(replica) for _, replica in sorted(self.fleet.replicas.items())],
            "requests": {
                "received": telemetry.received,
                "completed": telemetry.completed,
                "cancelled": telemetry.cancelled,
                "failed": dict(telemetry.failures),
                "moved": dict(telemetry.moves),
                "continued": telemetry.continued,
            },
            "tokens": self._tokens(),
            "recording": self._recording(),
        }

    def decisions(self, count: int) -> list[dict[str, Any]]:
        """Return the last `count` routing decisions, the newest first; their age instead of a time of day."""
        now = self.now()
        latest = list(self.telemetry.decisions)[-count:] if count > 0 else []
        return [
            {
                "ageSeconds": round(now - decision.at, 3),
                "request": decision.request_id,
                "replica": decision.replica,
                "attempt": decision.attempt,
                "queueSeconds": round(decision.queued_s, 4),
                "promptTokens": decision.prompt_tokens,
                "inFlight": decision.in_flight,
                "prefillTokens": decision.prefill_tokens,
            }
            for decision in reversed(latest)
        ]

    def _config(self) -> dict[str, Any]:
        current, error = self.config.current, self.config.error or None
        if current is None:
            return {"hash": None, "modelDeployment": None, "schedulingPolicy": None, "error": error}
        policy = current.scheduling_policy
        return {
            "hash": current.hash,
            "modelDeployment": current.model_deployment.dump(),
            "schedulingPolicy": policy.dump() if policy else None,
            "error": error,
        }

    def _names(self) -> dict[str, Any]:
        names = names_of(self.config.current.scheduling if self.config.current else Scheduling())
        return {"policy": names.policy, "ordering": names.ordering, "gate": names.gate}

    def _replica(self, replica: Replica) -> dict[str, Any]:
        signals, own = replica.signals, replica.own.load
        p50, p99 = self._ttft(replica.name)
        return {
            "name": replica.name,
            "address": replica.address,
            "state": replica.shown.value,
            "inFlight": own.in_flight,
            "prefillTokens": own.prefill_tokens,
            "waitingPromptTokens": own.waiting_prompt_tokens,
            "decoding": own.decoding,
            "decodeTokens": own.decode_tokens,
            "seenTokens": replica.own.freed_tokens + own.decode_tokens,
            "peersInFlight": replica.foreign.in_flight,
            "peersPrefillTokens": replica.foreign.prefill_tokens,
            "peersDecodeTokens": replica.foreign.decode_tokens,
            "deferenceSeconds": replica.deference_s,
            "kvTokens": replica.kv_tokens,
            "prefillTokensPerSecond": round(replica.prefill_rate, 1),
            "weight": replica.weight,
            "suspended": replica.suspended,
            "maxInFlight": self.dispatcher.gate.limit(replica),
            "signals": {
                "state": self.fleet.signals_state(replica),
                "running": signals.running if signals else None,
                "waiting": signals.waiting if signals else None,
                "kvUsage": signals.kv_usage if signals else None,
            },
            "adapters": list(replica.adapters.served),
            "prefixCache": self._prefix_cache(replica)
            | ({} if self.dispatcher.policy.reads_prefixes else {"predictedShare": None}),
            "ttftSeconds": {"p50": p50, "p99": p99},
        }

    def _ttft(self, name: str) -> tuple[float | None, float | None]:
        counters = self.telemetry.replicas.get(name)
        since = self.now() - RECENT_S
        seen = sorted(seconds for when, seconds in counters.recent_ttft if when >= since) if counters else []
        return _percentile(seen, 0.5), _percentile(seen, 0.99)


def _percentile(ordered: list[float], quantile: float) -> float | None:
    """Nearest rank; None of nothing."""
    return round(ordered[max(ceil(quantile * len(ordered)) - 1, 0)], 4) if ordered else None
