"""Turns outcomes into figures: percentiles, goodput against an objective, failures by kind. Called by `load` and `demo`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

from halffull.local.client import Outcome

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Slo:
    """The service-level objective of one request."""

    ttft_s: float
    tpot_s: float

    def met(self, outcome: Outcome) -> bool:
        """Whether a whole answer came in time; one that is not streamed has the same time in all."""
        if outcome.error:
            return False
        if outcome.ttft_s is None:
            return outcome.duration_s <= self.ttft_s + self.tpot_s * max(0, outcome.tokens - 1)
        return outcome.ttft_s <= self.ttft_s and (outcome.tpot_s or 0.0) <= self.tpot_s


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, interpolated between neighbours."""
    place = share * (len(ordered) - 1)
    low = floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """Mean and percentiles of what is known; None if nothing is."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    figures = {name: percentile(known, share) for name, share in PERCENTILES.items()}
    return {name: round(value, 6) for name, value in ({"mean": sum(known) / len(known)} | figures).items()}


def report(outcomes: Sequence[Outcome], slo: Slo, seconds: float) -> dict[str, Any]:
    """All figures of a replay that sent for `seconds`, as a JSON document; times in seconds."""
    whole = [outcome for outcome in outcomes if not outcome.error]
    good = sum(map(slo.met, outcomes))
    return {
        "seconds": round(seconds, 3),
        "requests": {
            "sent": len(outcomes),
            "completed": len(whole),
            "failed": dict(Counter(outcome.error for outcome in outcomes if outcome.error).most_common()),
            "streamed": sum(outcome.stream for outcome in outcomes),
            "shorterThanAsked": sum(outcome.tokens < outcome.call.output_tokens for outcome in whole),
        },
        "ttftSeconds": spread(outcome.ttft_s for outcome in whole),
        "tpotSeconds": spread(outcome.tpot_s for outcome in whole),
        "durationSeconds": spread(outcome.duration_s for outcome in whole),
        "goodput": {
            "slo": {"ttftSeconds": slo.ttft_s, "tpotSeconds": slo.tpot_s},
            "fraction": round(good / len(outcomes), 4) if outcomes else 0.0,
            "requestsPerSecond": round(good / seconds, 3),
        },
        "throughput": {
            "requestsPerSecond": round(len(whole) / seconds, 3),
            "promptTokensPerSecond": round(sum(outcome.call.prompt_tokens for outcome in whole) / seconds, 1),
            "outputTokensPerSecond": round(sum(outcome.tokens for outcome in whole) / seconds, 1),
        },
        "replicas": dict(sorted(Counter(outcome.replica for outcome in outcomes if outcome.replica).items())),
        "lagSeconds": spread(outcome.lag_s for outcome in outcomes),
    }


def lines(figures: dict[str, Any]) -> list[str]:
    """The same for people."""
    requests, goodput, throughput = figures["requests"], figures["goodput"], figures["throughput"]
    failed = sum(requests["failed"].values())
    text = [
        f"requests   {requests['sent']} sent in {figures['seconds']:.1f} s, {requests['completed']} completed, {failed} failed",
        *(f"  failed   {count} x {kind}" for kind, count in requests["failed"].items()),
        (
            f"throughput {throughput['requestsPerSecond']:.1f} requests/s, {throughput['promptTokensPerSecond']:.0f} prompt tokens/s, "
            f"{throughput['outputTokensPerSecond']:.0f} output tokens/s"
        ),
        _row("TTFT", figures["ttftSeconds"], 1, "s"),
        _row("TPOT", figures["tpotSeconds"], 1000, "ms"),
        _row("duration", figures["durationSeconds"], 1, "s"),
        (
            f"goodput    {goodput['fraction']:.1%} of requests with TTFT <= {goodput['slo']['ttftSeconds']:g} s and "
            f"TPOT <= {goodput['slo']['tpotSeconds']:g} s: {goodput['requestsPerSecond']:.1f} requests/s"
        ),
    ]
    if requests["shorterThanAsked"]:
        text.append(f"shorter    {requests['shorterThanAsked']} answers have fewer tokens than were asked for")
    if figures["replicas"]:
        text.append("replicas   " + ", ".join(f"{name}: {count}" for name, count in figures["replicas"].items()))
    lag = figures["lagSeconds"]
    if lag and lag["p99"] > 0.05:
        text.append(f"lag        this machine sent late: p99 {lag['p99']:.3f} s (counted in TTFT)")
    return text


def _row(name: str, figures: dict[str, float] | None, scale: float, unit: str) -> str:
    if figures is None:
        return f"{name:<10} not seen"
    return f"{name:<10} " + ", ".join(
        f"{key} {figures[key] * scale:.3g} {unit}" for key in ("p50", "p95", "p99", "mean")
    )
