"""The router's queue: bounded in requests and bytes, offered in the order of an ordering. Kept by `dispatch`."""

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from halffull.core.contracts import Context, Ordering
from halffull.core.exchange import Exchange


class Queue:
    """Exchanges that wait for a replica. Left ones stay in the heap until they surface, so leaving is O(1)."""

    def __init__(self, ordering: Ordering) -> None:
        self._ordering = ordering
        self._heap: list[tuple[float, float, int, Exchange]] = []
        self._waiting: dict[Exchange, float] = {}
        self._by_entry: deque[tuple[float, Exchange]] = deque()
        self._ticket = count()
        self.bytes = 0
        """request bodies that wait, bytes"""

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, exchange: Exchange, context: Context) -> None:
        """Let it wait. One that was sent before keeps its arrival, and so its place in the order."""
        now = context.now
        self._waiting[exchange] = now
        self._by_entry.append((now, exchange))
        self.bytes += exchange.request.body_bytes
        heappush(self._heap, self._entry(exchange, context))

    def leave(self, exchange: Exchange) -> None:
        """Take it out, wherever it is; nothing if it does not wait."""
        if self._waiting.pop(exchange, None) is not None:
            self.bytes -= exchange.request.body_bytes

    def first(self) -> Exchange | None:
        """The one to offer next; it stays in the queue."""
        while self._heap:
            exchange = self._heap[0][3]
            if exchange in self._waiting:
                return exchange
            heappop(self._heap)
        return None

    def entered_before(self, moment: float) -> Iterator[Exchange]:
        """Those that wait since `moment` or longer, oldest first; the caller takes each out or stops."""
        while self._by_entry:
            entered, exchange = self._by_entry[0]
            if self._waiting.get(exchange) != entered:
                self._by_entry.popleft()
            elif entered > moment:
                return
            else:
                yield exchange

    def reorder(self, ordering: Ordering, context: Context) -> None:
        """Change the ordering; nobody leaves."""
        self._ordering = ordering
        self._heap = [self._entry(exchange, context) for exchange in self._waiting]
        heapify(self._heap)

    def _entry(self, exchange: Exchange, context: Context) -> tuple[float, float, int, Exchange]:
        request = exchange.request
        return (self._ordering.key(request, context), request.arrived, next(self._ticket), exchange)
