"""The router's queue: bounded in requests and bytes, by class, fair between callers, in the order of an ordering.

Kept by `dispatch`. The lowest class is served first. Within a class callers take turns; a caller's own requests come in the
order of the ordering; those that were sent before and are back go first. A caller that comes back does not catch up on turns
it did not use (start-time fair queueing).
"""

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from halffull.core.contracts import Context, Ordering
from halffull.core.exchange import Exchange
from halffull.core.values import Request

Place = tuple[float, float, int, Exchange]


class _Caller:
    """The requests of one caller in one class."""

    __slots__ = ("heap", "turn")

    def __init__(self, turn: float) -> None:
        self.heap: list[Place] = []
        self.turn = turn


class _Class:
    """The callers of one priority class, by whose turn it is."""

    def __init__(self) -> None:
        self.callers: dict[str, _Caller] = {}
        self.turns: list[tuple[float, int, str]] = []
        self.clock = 0.0


class Queue:
    """Exchanges that wait for a replica. Left ones stay in the heaps until they surface, so leaving is O(1)."""

    def __init__(self, ordering: Ordering, *, fair: bool = True) -> None:
        """`fair`: callers take turns; else all are one."""
        self._ordering = ordering
        self._mode = 0
        self._fair = fair
        self._classes: dict[int, _Class] = {}
        self._waiting: dict[Exchange, float] = {}
        self._by_entry: deque[tuple[float, Exchange]] = deque()
        self._ticket = count()
        self.bytes = 0
        """request bodies that wait, bytes"""

    def __len__(self) -> int:
        return len(self._waiting)

    def key(self, request: Request, context: Context) -> float:
        """Where the ordering places a request now: smaller is earlier."""
        context.waiting_since = self.oldest
        return self._ordering.key(request, context)

    def behind(self, exchange: Exchange, context: Context) -> bool:
        """Whether the ordering puts it behind all that still come."""
        return not exchange.attempts and self._ordering.behind(exchange.request, context)

    def push(self, exchange: Exchange, context: Context) -> None:
        """Let it wait. One that was sent before is next within its class and caller."""
        now = context.now
        self._waiting[exchange] = now
        self._by_entry.append((now, exchange))
        self.bytes += exchange.request.body_bytes
        self._turn(context)
        self._ordering.joined(exchange.request)
        self._file(exchange, context)

    def leave(self, exchange: Exchange) -> None:
        """Take it out, wherever it is; nothing if it does not wait."""
        if self._waiting.pop(exchange, None) is not None:
            self.bytes -= exchange.request.body_bytes
            self._ordering.left(exchange.request)

    def offer(self, take: Callable[[Exchange], bool], most: int, context: Context) -> None:
        """Offer those that wait, in order, until `most` were not taken. Who is not taken keeps place and turn."""
        self._turn(context)
        for priority in sorted(self._classes):
            group = self._classes[priority]
            left = self._offer_class(group, take, most, context)
            if not group.callers:
                del self._classes[priority]
            most -= left
            if most <= 0:
                return

    def _offer_class(self, group: _Class, take: Callable[[Exchange], bool], most: int, context: Context) -> int:
        """Offer within one class; return how many were not taken."""
        kept: list[tuple[_Caller, Place]] = []
        turns = group.turns
        while turns and len(kept) < most:
            turn, ticket, name = heappop(turns)
            caller = group.callers[name]
            place = self._first(caller, context)
            if place is None:
                if not any(other is caller for other, _ in kept):
                    del group.callers[name]
                continue
            if take(place[3]):
                group.clock = max(group.clock, caller.turn)
                caller.turn += 1
                self.leave(place[3])
            elif most == 1:
                heappush(caller.heap, place)
                heappush(turns, (turn, ticket, name))
                return 1
            else:
                kept.append((caller, place))
            heappush(turns, (turn + 1, next(self._ticket), name))  # who is passed over lets the next caller have a look
        if kept:
            for caller, place in kept:
                heappush(caller.heap, place)
            group.turns = [(caller.turn, next(self._ticket), name) for name, caller in group.callers.items()]
            heapify(group.turns)
        return len(kept)

    def _first(self, caller: _Caller, context: Context) -> Place | None:
        """Take out the first of a caller that still waits, by keys as they are now."""
        heap = caller.heap
        while heap:
            place = heappop(heap)
            exchange = place[3]
            if exchange not in self._waiting:
                continue
            now = self._key(exchange, context)
            if now <= place[0]:
                return place
            heappush(heap, (now, place[1], place[2], exchange))
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

    @property
    def oldest(self) -> float | None:
        """Since when the one that waits longest does; None: none waits."""
        by_entry, waiting = self._by_entry, self._waiting
        while by_entry:
            entered, exchange = by_entry[0]
            if waiting.get(exchange) == entered:
                return entered
            by_entry.popleft()
        return None

    def reorder(self, ordering: Ordering, context: Context, *, fair: bool) -> None:
        """Change the ordering; nobody leaves."""
        context.waiting_since = self.oldest
        self._ordering, self._fair, self._mode = ordering, fair, ordering.mode(context)
        self._classes = {}
        for exchange in self._waiting:
            ordering.joined(exchange.request)
        for exchange in self._waiting:
            self._file(exchange, context)

    def _turn(self, context: Context) -> None:
        """File all anew where the ordering's mode has changed; callers keep their turns."""
        context.waiting_since = self.oldest
        mode = self._ordering.mode(context)
        if mode == self._mode:
            return
        self._mode = mode
        for group in self._classes.values():
            for caller in group.callers.values():
                waiting = [place for place in caller.heap if place[3] in self._waiting]
                caller.heap = [(self._key(place[3], context), *place[1:]) for place in waiting]
                heapify(caller.heap)

    def _key(self, exchange: Exchange, context: Context) -> float:
        return self._ordering.key(exchange.request, context) if not exchange.attempts else -inf

    def _file(self, exchange: Exchange, context: Context) -> None:
        request = exchange.request
        group = self._classes.setdefault(request.priority, _Class())
        name = request.caller if self._fair else ""
        caller = group.callers.get(name)
        if caller is None:
            caller = group.callers[name] = _Caller(group.clock)
            heappush(group.turns, (caller.turn, next(self._ticket), name))
        heappush(caller.heap, (self._key(exchange, context), request.arrived, next(self._ticket), exchange))
