"""Take single values out of a Prometheus exposition without parsing it.

A vLLM's exposition is 58 KB in 700 lines, of which an adapter needs about ten. `Exposition` looks for the names it is
asked for at line starts and reads only those lines. Callers: the adapters of this package. Garbage gives None, never an
exception: what an engine says is input from outside.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MOST = 1e15
"""no count of an engine comes near; what is more is garbage, of which sums and quotients need not be numbers"""
LABEL = re.compile(rb'(?<![a-zA-Z0-9_])([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Series:
    """Where one value is found, and how the series of one replica's processes become one value."""

    names: tuple[bytes, ...]
    """candidate metric names, the newest first; the first that is present counts"""
    across: Literal["sum", "mean"] = "sum"
    """how data-parallel ranks combine: counts add up, fractions are averaged"""
    rank: bytes = b"engine"
    """label of the data-parallel rank; within one rank, copies by `alike` are one series said twice"""
    alike: tuple[bytes, ...] = (b"pid", b"tp_rank", b"pp_rank", b"moe_ep_rank")
    """labels of processes that report the same thing: the largest value counts, they never add up"""
    only: tuple[tuple[bytes, bytes], ...] = ()
    """a series that carries one of these labels counts only with this value (SGLang's `priority=""` is the total)"""


class Exposition:
    """One scrape's body; each look-up scans for one name, from where the last one was found."""

    def __init__(self, body: bytes | str) -> None:
        raw = body.encode(errors="replace") if isinstance(body, str) else body
        self._text = raw if raw.startswith(b"\n") else b"\n" + raw
        self._near = 0

    def value(self, series: Series) -> float | None:
        """Return the value of the first candidate name that is present and not garbage; None where there is none."""
        for name in series.names:
            total = _combine(series, self._lines(name))
            if total is not None:
                return total if math.isfinite(total) else None
        return None

    def fraction(self, series: Series) -> float | None:
        """Return a value as a fraction: above 1 it was a percentage; above 100 it is garbage."""
        value = self.value(series)
        if value is None or value <= 1:
            return value
        return value / 100 if value <= 100 else None

    def labels(self, name: bytes) -> list[dict[bytes, bytes]]:
        """Return the labels of each series of an information metric (its value says nothing)."""
        return [dict(LABEL.findall(line)) for line in self._lines(name)]

    def newest(self, name: bytes) -> dict[bytes, bytes]:
        """Return the labels of the series whose value, the time when it was true, is the largest; empty: there is none."""
        lines = [(number(line[line.rfind(b"}") + 1 :]) or 0.0, line) for line in self._lines(name)]
        return dict(LABEL.findall(max(lines)[1])) if lines else {}

    def _lines(self, name: bytes) -> Iterator[bytes]:
        """Yield what follows the name on each of its lines; they stand together, as the text format demands."""
        text, needle = self._text, b"\n" + name
        at = text.find(needle, self._near)
        if at < 0:
            at = text.find(needle, 0, self._near + len(needle))
        first = True
        while at >= 0:
            start = at + len(needle)
            end = text.find(b"\n", start)
            line = text[start : end if end >= 0 else len(text)]
            if line[:1] in (b"{", b" ", b"\t"):
                if first:
                    self._near, first = at, False
                yield line
                at = end if end >= 0 and text.startswith(needle, end) else -1
            else:  # a longer name that begins alike
                at = text.find(needle, start)


def _combine(series: Series, lines: Iterator[bytes]) -> float | None:
    """Return the value of all series of one name as `series` says; None when none of them is a number."""
    ranks: dict[bytes, dict[frozenset[tuple[bytes, bytes]], float]] = defaultdict(dict)
    for line in lines:
        brace = line.rfind(b"}")
        value = number(line[brace + 1 :])
        if value is None:
            continue
        labels = dict(LABEL.findall(line[:brace])) if brace > 0 else {}
        if any(labels.get(label, wanted) != wanted for label, wanted in series.only):
            continue
        group = ranks[labels.pop(series.rank, b"")]
        one = frozenset(item for item in labels.items() if item[0] not in series.alike)
        group[one] = max(value, group.get(one, 0.0))
    if not ranks:
        return None
    totals = [sum(group.values()) for group in ranks.values()]
    return sum(totals) if series.across == "sum" else sum(totals) / len(totals)


def number(text: bytes) -> float | None:
    """Return a sample's or a label's value (a timestamp may follow); None for what is no number of 0 to MOST."""
    words = text.split(maxsplit=1)
    try:
        value = float(words[0])
    except (IndexError, ValueError):
        return None
    return value if 0 <= value <= MOST else None


def total(value: float | None, extra: float | None) -> float | None:
    """Return a value plus what some versions tell besides; None where the value itself is unknown."""
    if value is None or extra is None:
        return value
    return value + extra if math.isfinite(value + extra) else None


def product(left: float | None, right: float | None) -> float | None:
    """Return a capacity from its parts; None where one is unknown or 0 (an engine that has not started)."""
    result = left * right if left and right else None
    return result if result is not None and math.isfinite(result) else None


def ratio(part: float | None, whole: float | None) -> float | None:
    """Return a fraction of 0 to 1; None where a part is unknown or makes no sense."""
    if part is None or not whole or part > whole:
        return None
    return part / whole
