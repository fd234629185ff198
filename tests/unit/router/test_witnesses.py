"""What is told of a request's end: access log lines and spans. A real OpenTelemetry keeps the spans in memory."""

import json
import random

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from halffull.router.observability import tracing
from halffull.router.observability.access_log import AccessLog
from halffull.router.observability.telemetry import Ended
from halffull.router.observability.tracing import Spans

ENDED = Ended(
    request_id="r-1", method="POST", path="/v1/completions", status=200, reason="", replica="pod-0", attempts=2,
    prompt_tokens=12, generated_tokens=34, caller="abc", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    arrived=100.0, sent_at=100.25, started_at=100.5, ended_at=102.0,
)  # fmt: skip
MONOTONIC, EPOCH = 102.0, 1_800_000_000.0


def test_a_line_is_json_with_times_relative_to_the_arrival() -> None:
    lines: list[str] = []
    log = AccessLog(lines.append, lambda: EPOCH, random.Random(1))
    log.share = 1.0
    log(ENDED)

    assert json.loads(lines[0]) == {
        "time": "2027-01-15T08:00:00.000Z", "requestId": "r-1", "method": "POST", "path": "/v1/completions", "status": 200,
        "reason": None, "replica": "pod-0", "attempts": 2, "promptTokens": 12, "generatedTokens": 34, "caller": "abc",
        "durationSeconds": 2.0, "sentAfterSeconds": 0.25, "ttftSeconds": 0.5,
    }  # fmt: skip
    assert lines[0].endswith("}\n")


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.1, 60, 140), (1.0, 1000, 1000)])
def test_a_share_is_written(share: float, least: int, most: int) -> None:
    lines: list[str] = []
    log = AccessLog(lines.append, lambda: EPOCH, random.Random(1))
    log.share = share
    for _ in range(1000):
        log(ENDED)

    assert least <= len(lines) <= most


def test_a_span_has_the_requests_times_and_its_clients_parent() -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    spans = Spans(provider, lambda: MONOTONIC, lambda: EPOCH)
    spans(ENDED)
    spans(ENDED._replace(reason="engine_silent", status=502, traceparent="garbage", sent_at=None, started_at=None))
    good, bad = kept.get_finished_spans()

    assert (good.start_time, good.end_time) == (int((EPOCH - 2) * 1e9), int(EPOCH * 1e9))
    assert f"{good.parent.span_id:016x}" == "b7ad6b7169203331"
    assert [event.name for event in good.events] == ["sent", "first_token"]
    assert good.attributes["halffull.replica"] == "pod-0"
    assert bad.parent is None
    assert not bad.status.is_ok
    assert bad.attributes["error.type"] == "engine_silent"


def test_an_endpoint_for_spans_without_opentelemetry_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)

    assert tracing.tracer(float, float) is None
    assert "OpenTelemetry is not installed" in caplog.text
