"""The router's queue: bounded in requests and bytes, by class, fair between callers, in the order of an ordering.

Kept by `dispatch`. The lowest class is served first. Within a class those go last, whoever's they are, that the ordering puts
behind all that still come. Within each of these two lines callers take turns; a caller's own requests come in the order of the
ordering; those that were sent before and are back go first. A caller that comes back does not catch up on turns it did not use
(start-time fair queueing).
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

from halffull.core.contracts import Context, Ordering
from halffull.core.exchange import Exchange
from halffull.core.values import Request

Place = tuple[float, float, int, Exchange]


class _Caller:
    """The requests of one caller in one line."""

    __slots__ = ("heap", "turn", "waiting")

    def __init__(self, turn: int) -> None:
        self.heap: list[Place] = []
        self.turn = turn
        self.waiting = 0
        """of those in the heap, who has not left"""


class _Line:
    """The callers of one priority class, by whose turn it is: of its requests in front, or of those that are behind."""

    def __init__(self, *, behind: bool) -> None:
        self.behind = behind
        self.callers: dict[str, _Caller] = {}
        self.turns: list[tuple[int, int, str]] = []
        self.clock = 0
        self.waiting = 0

    def before(self, name: str) -> int:
        """Return how many go before the next request of a caller, at most: its others, and others' until its turn."""
        caller = self.callers.get(name)
        if caller is None:
            return min(self.waiting, len(self.callers))
        turns = caller.waiting + 1 + max(caller.turn - self.clock, 0)
        return caller.waiting + min(self.waiting - caller.waiting, turns * (len(self.callers) - 1))


SWEPT = 1024
"""filings, and twice as many as wait, after which those that have left are looked for"""


class _Wait:
    """One that waits: since when, seconds, and where."""

    __slots__ = ("caller", "entered", "exchange", "line")

    def __init__(self, exchange: Exchange, entered: float) -> None:
        self.exchange = exchange
        self.entered = entered
        self.line: _Line
        self.caller: _Caller


class Queue:
    """Exchanges that wait for a replica. Left ones stay in the heaps until they surface or are swept out: leaving is O(1)."""

    def __init__(self, ordering: Ordering, *, fair: bool = True) -> None:
        """`fair`: callers take turns; else all are one."""
        self._ordering = ordering
        self._mode = 0
        self._fair = fair
        self._lines: dict[tuple[int, bool], _Line] = {}
        """by class and whether they are behind"""
        self._waiting: dict[Exchange, _Wait] = {}
        self._by_entry: deque[_Wait] = deque()
        self._ticket = count()
        self._filed = 0
        """filings since those that have left were looked for"""
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

    def ahead(self, request: Request, per_second: float, context: Context) -> int:
        """Return how many go before a request that comes now, at most, if so many are released a second.

        One that would be behind by its turn is taken for the last of its class. Costs the same however many wait.
        """
        self._turn(context)
        priority = request.priority
        lower = sum(line.waiting for (other, _), line in self._lines.items() if other < priority)
        front, back = self._lines.get((priority, False)), self._lines.get((priority, True))
        ahead = lower + (front.before(self._name(request)) if front else 0)
        if back is None:
            return ahead
        then = replace(context, now=context.now + ahead / per_second)
        if not self._ordering.behind(request, then):
            return ahead
        return lower + (front.waiting if front else 0) + back.waiting

    def push(self, exchange: Exchange, context: Context) -> None:
        """Let it wait. One that was sent before is next within its class and caller."""
        if self._filed > SWEPT + 2 * len(self._waiting):
            self._sweep()
        self._turn(context)
        wait = self._waiting[exchange] = _Wait(exchange, context.now)
        self._by_entry.append(wait)
        self.bytes += exchange.request.body_bytes
        self._ordering.joined(exchange.request)
        self._file(exchange, context)

    def leave(self, exchange: Exchange) -> None:
        """Take it out, wherever it is; nothing if it does not wait."""
        wait = self._waiting.pop(exchange, None)
        if wait is not None:
            self._unfile(wait)
            self.bytes -= exchange.request.body_bytes
            self._ordering.left(exchange.request)

    def offer(self, take: Callable[[Exchange], bool], most: int, context: Context) -> None:
        """Offer those that wait, in order, until `most` were not taken. Who is not taken keeps place and turn."""
        self._turn(context)
        for priority in sorted({priority for priority, _ in self._lines}):
            for behind in (False, True):
                line = self._lines.get((priority, behind))
                if line is not None:
                    most -= self._offer_line(line, take, most, context)
                    if not line.callers:
                        del self._lines[priority, behind]
                    if most <= 0:
                        return

    def _offer_line(self, line: _Line, take: Callable[[Exchange], bool], most: int, context: Context) -> int:
        """Offer within one line; return how many were not taken."""
        kept: list[tuple[_Caller, Place]] = []
        turns = line.turns
        while turns and len(kept) < most:
            turn, ticket, name = heappop(turns)
            caller = line.callers[name]
            place = self._first(line, caller, context)
            if place is None:
                if not any(other is caller for other, _ in kept):
                    del line.callers[name]
                continue
            if take(place[3]):
                line.clock = max(line.clock, caller.turn)
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
            line.turns = [(caller.turn, next(self._ticket), name) for name, caller in line.callers.items()]
            heapify(line.turns)
        return len(kept)

    def _first(self, line: _Line, caller: _Caller, context: Context) -> Place | None:
        """Take out the first of a caller that still waits, by keys as they are now; who is behind now changes lines."""
        heap = caller.heap
        while heap:
            place = heappop(heap)
            exchange = place[3]
            if not self._is_filed(exchange, line):
                continue
            now = self._key(exchange, context)
            if not line.behind and self.behind(exchange, context):
                self._refile(exchange, context)
            elif now <= place[0]:
                return place
            else:
                heappush(heap, (now, place[1], place[2], exchange))
        return None

    def entered_before(self, moment: float) -> Iterator[Exchange]:
        """Those that wait since `moment` or longer, oldest first; the caller takes each out or stops."""
        while (wait := self._eldest()) is not None and wait.entered <= moment:
            yield wait.exchange

    @property
    def oldest(self) -> float | None:
        """Since when the one that waits longest does; None: none waits."""
        wait = self._eldest()
        return None if wait is None else wait.entered

    def _eldest(self) -> _Wait | None:
        by_entry = self._by_entry
        while by_entry:
            wait = by_entry[0]
            if self._waiting.get(wait.exchange) is wait:
                return wait
            by_entry.popleft()
        return None

    def reorder(self, ordering: Ordering, context: Context, *, fair: bool) -> None:
        """Change the ordering; nobody leaves."""
        context.waiting_since = self.oldest
        self._ordering, self._fair, self._mode = ordering, fair, ordering.mode(context)
        for exchange in self._waiting:
            ordering.joined(exchange.request)
        self._file_anew(context)

    def _turn(self, context: Context) -> None:
        """File anew: all where the ordering's mode has changed, else who waits longest if it is behind no more."""
        eldest = self._eldest()
        context.waiting_since = None if eldest is None else eldest.entered
        mode = self._ordering.mode(context)
        if mode != self._mode:
            self._mode = mode
            self._file_anew(context)
        elif eldest is not None and eldest.line.behind and not self.behind(eldest.exchange, context):
            self._refile(eldest.exchange, context)

    def _refile(self, exchange: Exchange, context: Context) -> None:
        self._unfile(self._waiting[exchange])
        self._file(exchange, context)

    def _file_anew(self, context: Context) -> None:
        """Callers begin anew to take turns, too: between two that wait that is one turn at most."""
        self._lines = {}
        for exchange in self._waiting:
            self._file(exchange, context)

    def _key(self, exchange: Exchange, context: Context) -> float:
        return self._ordering.key(exchange.request, context) if not exchange.attempts else -inf

    def _file(self, exchange: Exchange, context: Context) -> None:
        request, wait = exchange.request, self._waiting[exchange]
        key = self._key(exchange, context)
        behind = self.behind(exchange, context)
        line = self._lines.get((request.priority, behind))
        if line is None:
            line = self._lines[request.priority, behind] = _Line(behind=behind)
        name = self._name(request)
        caller = line.callers.get(name)
        if caller is None:
            caller = line.callers[name] = _Caller(line.clock)
            heappush(line.turns, (caller.turn, next(self._ticket), name))
        heappush(caller.heap, (key, request.arrived, next(self._ticket), exchange))
        line.waiting += 1
        caller.waiting += 1
        wait.line, wait.caller = line, caller
        self._filed += 1

    def _sweep(self) -> None:
        """Forget those that have left: where no replica takes anything, none of them ever surfaces."""
        self._filed = 0
        self._by_entry = deque(wait for wait in self._by_entry if self._waiting.get(wait.exchange) is wait)
        for where, line in list(self._lines.items()):
            for name, caller in list(line.callers.items()):
                caller.heap = [place for place in caller.heap if self._is_filed(place[3], line)]
                heapify(caller.heap)
                if not caller.heap and caller.turn <= line.clock:
                    del line.callers[name]
            line.turns = [turn for turn in line.turns if turn[2] in line.callers]
            heapify(line.turns)
            if not line.callers:
                del self._lines[where]

    def _is_filed(self, exchange: Exchange, line: _Line) -> bool:
        wait = self._waiting.get(exchange)
        return wait is not None and wait.line is line

    def _unfile(self, wait: _Wait) -> None:
        """Count it there no longer; its place in the heap goes when it surfaces."""
        wait.line.waiting -= 1
        wait.caller.waiting -= 1

    def _name(self, request: Request) -> str:
        return request.caller if self._fair else ""
