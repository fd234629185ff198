"""Routers that tell each other of their books, with the ledger that real ones keep (`core.peers`), some time later. Called by
`simulation`.

What a router's books say of a replica reaches the others when the ledger says, the delay between real processes at the least;
whose request waits longest is said along with it, and again at each tick.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.core.peers import Peers

LOOK_TICKS = 4
"""answers under way are looked at every so many ticks, as by a real router"""


class Sharing:
    """The ledgers of all routers."""

    def __init__(
        self,
        dispatchers: Sequence[Dispatcher],
        later: Callable[[float, Callable[[tuple[int, int]], None], tuple[int, int]], None],
        heard: Callable[[Dispatcher, list[Replica]], None],
        present: Callable[[], float],
    ) -> None:
        """`later` calls a function with its argument after so many seconds, or the delay between routers if that is longer;
        `heard`: a router's books changed; `present` brings all books up to date and returns the time.
        """
        self._dispatchers = dispatchers
        self._later = later
        self._heard = heard
        self._present = present
        self._told = 0
        self._ticks = 0
        self._telling = [(inf, 0)] * len(dispatchers)
        """within how many seconds each router's next telling is due, and its number"""
        for router, dispatcher in enumerate(dispatchers):
            dispatcher.peers = Peers(dispatcher.books, partial(self._wake, router))

    def tick(self) -> None:
        """Time has passed."""
        self._ticks += 1
        for router, dispatcher in enumerate(self._dispatchers):
            if self._ticks % LOOK_TICKS == 0 and dispatcher.peers is not None:
                dispatcher.peers.look()
            if len(dispatcher.queue):
                self._tell_within(router, 0.0)

    def _wake(self, router: int) -> None:
        ledger = self._dispatchers[router].peers
        if ledger is not None:
            self._tell_within(router, ledger.within_s)

    def _tell_within(self, router: int, seconds: float) -> None:
        before, number = self._telling[router]
        if seconds < before:
            self._telling[router] = (seconds, number + 1)
            self._later(seconds, self._due, (router, number + 1))

    def _due(self, telling: tuple[int, int]) -> None:
        router, number = telling
        if self._telling[router][1] == number:  # else the others were to hear of it earlier
            self._telling[router] = (inf, number)
            self._tell(router)

    def _tell(self, router: int) -> None:
        """Let the others enter what has changed here."""
        teller, now = self._dispatchers[router], self._present()
        if teller.peers is None:
            return
        pages, oldest = teller.peers.take(), teller.queue.oldest
        self._told += 1
        for dispatcher in self._dispatchers:
            if dispatcher is not teller and dispatcher.peers is not None:
                changed = dispatcher.peers.hear(str(router), self._told, pages, now)
                dispatcher.peers.claim(str(router), None if oldest is None else now - oldest, now)
                self._heard(dispatcher, changed)
