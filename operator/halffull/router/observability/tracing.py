"""Spans of requests by OpenTelemetry, where the extra `otel` is installed and an OTLP endpoint is set; else nothing at all.

`app` asks for a tracer. A span is made when its request has ended, from times that are kept anyway, so that tracing costs
nothing on the way. The engine's own spans are its siblings below the client's `traceparent`, which is passed on as it came.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from halffull.router.observability.telemetry import Ended

LOG = logging.getLogger(__name__)


def tracer(clock: Callable[[], float], wall_clock: Callable[[], float]) -> Callable[[Ended], None] | None:
    """Return what makes spans of ended requests and sends them to the OTLP endpoint that the environment names.

    None where OpenTelemetry is not installed, which is logged. `clock` is the one of the requests, `wall_clock` the epoch's, in
    seconds.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        LOG.warning("no spans, though an OTLP endpoint is set: OpenTelemetry is not installed (extra `otel`)")
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # an extra
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": "halffull-router"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider, clock, wall_clock)


class Spans:
    """Makes one span of each ended request."""

    def __init__(self, provider: Any, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415  # an extra
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._tracer = provider.get_tracer("halffull")
        self._extract = TraceContextTextMapPropagator().extract
        self._error = StatusCode.ERROR
        self._clock = clock
        self._wall_clock = wall_clock

    def __call__(self, ended: Ended) -> None:
        """A request has ended."""
        offset = self._wall_clock() - self._clock()

        def moment(seconds: float) -> int:
            return int((seconds + offset) * 1e9)

        parent = self._extract({"traceparent": ended.traceparent}) if ended.traceparent else None
        attributes = {
            "http.request.method": ended.method,
            "http.route": ended.path,
            "http.response.status_code": ended.status,
            "gen_ai.usage.input_tokens": ended.prompt_tokens,
            "gen_ai.usage.output_tokens": ended.generated_tokens,
            "halffull.request_id": ended.request_id,
            "halffull.replica": ended.replica,
            "halffull.attempts": ended.attempts,
        }
        span = self._tracer.start_span(ended.path, parent, attributes=attributes, start_time=moment(ended.arrived))
        if ended.sent_at is not None:
            span.add_event("sent", timestamp=moment(ended.sent_at))
        if ended.started_at is not None:
            span.add_event("first_token", timestamp=moment(ended.started_at))
        if ended.reason:
            span.set_attribute("error.type", ended.reason)
            span.set_status(self._error, ended.reason)
        span.end(moment(ended.ended_at))
