"""Counts of HTTP requests by path and status, with the names that vLLM's instrumentation gives them.

The server calls `observe` once per request; paths that carry no inference are shown but unknown ones are one: `none`.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

_FINE = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5),
    *(3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60),
)


class HttpMetrics:
    """Five families in the engine's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "http_requests", "Requests by method, status and path.", ["handler", "method", "status"], registry=registry
        )
        self._request_bytes = Summary(
            "http_request_size_bytes", "Content-Length of requests.", ["handler"], registry=registry
        )
        self._response_bytes = Summary(
            "http_response_size_bytes", "Content-Length of responses.", ["handler"], registry=registry
        )
        self._fine = Histogram(
            "http_request_duration_highr_seconds", "Seconds to the answer's head.", buckets=_FINE, registry=registry
        )
        self._coarse = Histogram(
            "http_request_duration_seconds",
            "Seconds to the answer's head, by path.",
            ["handler", "method"],
            buckets=(0.1, 0.5, 1),
            registry=registry,
        )

    def observe(
        self, handler: str, method: str, status: int, seconds: float, *, request_bytes: int, response_bytes: int
    ) -> None:
        """Count one answered request; `handler` is its path or `none`."""
        self._requests.labels(handler, method, f"{status // 100}xx").inc()
        self._request_bytes.labels(handler).observe(request_bytes)
        self._response_bytes.labels(handler).observe(response_bytes)
        self._fine.observe(seconds)
        self._coarse.labels(handler, method).observe(seconds)
