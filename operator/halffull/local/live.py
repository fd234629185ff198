"""What `halffull demo` shows while it runs: a live table on a terminal, a line now and then elsewhere."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from halffull.local.client import Outcome
from halffull.local.comparison import seconds
from halffull.local.report import percentile

RECENT_S = 5.0
"""what the percentiles of the table cover"""
BARS = "▁▂▃▄▅▆▇█"
COLUMNS = ("running", "waiting", "queued tokens", "KV", "TTFT p50", "TTFT p99")
PLAIN_S = 4.0
"""between two lines where there is no terminal"""
NOTES = 4
"""the last of them are shown below the table"""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the demo is."""

    now: float
    """seconds of the event loop's clock"""
    elapsed_s: float
    text: str
    """the same and what was sent, for people"""


class Recent:
    """First tokens of the last seconds, by replica, and the history of their p99."""

    def __init__(self) -> None:
        self._first_tokens: defaultdict[str, deque[tuple[float, float]]] = defaultdict(deque)
        self.history: list[tuple[str, float]] = []
        """policy and TTFT p99 (s) of each second so far"""
        self._second: list[float] = []

    def first_token(self, outcome: Outcome) -> None:
        """A request got its first token."""
        if outcome.ttft_s is not None:
            self._first_tokens[outcome.replica].append((outcome.due_s + outcome.ttft_s, outcome.ttft_s))
            self._second.append(outcome.ttft_s)

    def second(self, policy: str) -> None:
        """A second is over."""
        if self._second:
            self.history.append((policy, percentile(sorted(self._second), 0.99)))
            self._second = []

    def of(self, replica: str, now: float) -> list[float]:
        """TTFTs (s) of the last seconds at a replica, sorted."""
        recent = self._first_tokens[replica]
        while recent and recent[0][0] < now - RECENT_S:
            recent.popleft()
        return sorted(ttft_s for _, ttft_s in recent)

    def of_all(self, now: float) -> list[float]:
        """TTFTs (s) of the last seconds, sorted."""
        return sorted(ttft_s for replica in list(self._first_tokens) for ttft_s in self.of(replica, now))


class Screen:
    """Draws on a terminal, prints now and then elsewhere; a context manager."""

    def __init__(self, names: Mapping[str, str], recent: Recent, console: Console) -> None:
        """`names` is what people read, by the replica's name."""
        self._names = names
        self._recent = recent
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._printed = 0
        self._next_line = PLAIN_S

    def __enter__(self) -> Self:
        """Take the terminal."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Give it back, the last picture stays."""
        if self._live:
            self._live.stop()

    def draw(self, status: Mapping[str, Any], at: Moment, notes: Sequence[str]) -> None:
        """Show one moment; `notes` are all that was said so far."""
        if self._live:
            self._live.update(self._table(status, at, notes[-NOTES:]), refresh=True)
            return
        for note in notes[self._printed :]:
            self._console.print(note, highlight=False, soft_wrap=True)
        self._printed = len(notes)
        if at.elapsed_s >= self._next_line:
            self._console.print(self._line(status, at), highlight=False, soft_wrap=True)
            self._next_line += PLAIN_S

    def _table(self, status: Mapping[str, Any], at: Moment, notes: Sequence[str]) -> Group:
        table = Table("replica", *(Column(name, justify="right") for name in COLUMNS))
        for page in self._pages(status):
            times = self._recent.of(page["name"], at.now)
            table.add_row(
                self._names[page["name"]],
                str(page["decoding"]),
                str(page["inFlight"] - page["decoding"]),
                f"{page['prefillTokens']:,}",
                _kv(page),
                _time(times, 0.5),
                _time(times, 0.99),
            )
        policy = Text.assemble("policy ", (f" {status.get('policy', '?')} ", "bold reverse"), f"   {at.text}")
        return Group(policy, table, self._sparkline(), *(Text(note, style="dim") for note in notes))

    def _line(self, status: Mapping[str, Any], at: Moment) -> str:
        times = self._recent.of_all(at.now)
        queued = "/".join(str(page["prefillTokens"]) for page in self._pages(status))
        return (
            f"{at.text}  policy {status.get('policy', '?')}  TTFT p50 {_time(times, 0.5)} p99 {_time(times, 0.99)}  "
            f"queued tokens {queued}"
        )

    def _pages(self, status: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The replicas in the order of their names for people."""
        pages = {page["name"]: page for page in status.get("replicas", ())}
        return [pages[name] for name in self._names if name in pages]

    def _sparkline(self) -> Text:
        """TTFT p99 of each second, one bar each, with the policies in two colours."""
        history = self._recent.history[-100:]
        top = max((p99 for _, p99 in history), default=1.0)
        text = Text("TTFT p99 of each second ")
        first = history[0][0] if history else ""
        for policy, p99 in history:
            text.append(BARS[min(7, int(8 * p99 / top))], style="yellow" if policy == first else "green")
        return text.append(f" max {top:.2f} s") if history else text


def _kv(page: Mapping[str, Any]) -> str:
    """Share of the KV cache that the router knows to be in use."""
    capacity = page["kvTokens"]
    return f"{min(1.0, page['decodeTokens'] / capacity):.0%}" if capacity else "?"


def _time(ordered: list[float], share: float) -> str:
    return seconds(percentile(ordered, share)) if ordered else "-"
