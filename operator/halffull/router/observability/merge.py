"""One view of several router processes: their `/status`, `/decisions` and `/metrics` merged. Pure; `workers` calls it."""

from collections.abc import Sequence
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

LARGEST = ("_info", "_up", "_ready", "_weight", "_fresh", "_limit", "_capacity", "python_info", "_start_time_seconds")
"""gauges that end so are not summed: every process says the same of them, or the largest is what matters"""
_SUMMED = ("inFlight", "prefillTokens", "waitingPromptTokens", "decoding", "decodeTokens", "seenTokens")
_WORST_FIRST = ("Down", "Suspect", "Draining", "Ready")


def status(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge `/status`: counts are summed, a replica is in the worst state that a process sees, percentiles are the largest.

    The configuration is the one that all have applied; while they differ there is none, and `error` says so.
    """
    first = documents[0]
    merged = dict(first)
    if any(document["config"]["hash"] != first["config"]["hash"] for document in documents):
        error = next((d["config"]["error"] for d in documents if d["config"]["error"]), "the workers differ")
        merged["config"] = {**first["config"], "hash": None, "error": error}
    merged["ready"] = all(document["ready"] for document in documents)
    merged["draining"] = any(document["draining"] for document in documents)
    merged["queue"] = _sums([document["queue"] for document in documents])
    merged["requests"] = _sums([document["requests"] for document in documents])
    merged["recording"] = _recording([document["recording"] for document in documents if document["recording"]])
    pages: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        for page in document["replicas"]:
            pages.setdefault(page["name"], []).append(page)
    merged["replicas"] = [_replica(found) for _, found in sorted(pages.items())]
    return merged


def _recording(pages: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Each worker records into a file of its own."""
    if not pages:
        return None
    counts = {name: sum(page[name] for page in pages) for name in ("recorded", "dropped")}
    error = next((page["error"] for page in pages if page["error"]), None)
    return {"file": ", ".join(str(page["file"]) for page in pages), **counts, "error": error}


def decisions(documents: Sequence[dict[str, Any]], count: int) -> dict[str, Any]:
    """Merge `/decisions`: the newest first."""
    rows = [row for document in documents for row in document["decisions"]]
    return {"decisions": sorted(rows, key=lambda row: row["ageSeconds"])[:count]}


def metrics(expositions: Sequence[str]) -> list[Metric]:
    """Merge `/metrics`: counters, histograms and loads are summed, facts that all share are kept once."""
    families: dict[str, Metric] = {}
    values: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
    for exposition in expositions:
        for family in text_string_to_metric_families(exposition):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                key = (family.name, sample.name, tuple(sorted(sample.labels.items())))
                known = values.get(key)
                summed = family.type != "gauge" or not sample.name.endswith(LARGEST)
                values[key] = (
                    sample.value if known is None else known + sample.value if summed else max(known, sample.value)
                )
    for (name, sample_name, labels), value in values.items():
        families[name].samples.append(Sample(sample_name, dict(labels), value))
    return list(families.values())


def _replica(pages: list[dict[str, Any]]) -> dict[str, Any]:
    merged = dict(pages[0])
    for key in _SUMMED:
        merged[key] = None if merged[key] is None else sum(page[key] or 0 for page in pages)
    states = {page["state"] for page in pages}
    merged["state"] = next(state for state in _WORST_FIRST if state in states)
    merged["suspended"] = any(page["suspended"] for page in pages)
    merged["ttftSeconds"] = {
        quantile: max(
            (page["ttftSeconds"][quantile] for page in pages if page["ttftSeconds"][quantile] is not None), default=None
        )
        for quantile in merged["ttftSeconds"]
    }
    return merged


def _sums(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add numbers, key by key, through nested objects."""
    merged: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            if isinstance(value, dict):
                merged[key] = _sums([merged.get(key, {}), value])
            else:
                merged[key] = merged.get(key, 0) + value
    return merged
