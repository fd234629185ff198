"""What routers of one fleet know of each other: pages that peers told of, and what is to be told of our own.

Kept by `dispatch`, carried by the router's `peers`. A router tells the whole page of a replica whenever it changed, never a
difference: a page that is told twice does no harm, one that was overtaken is refused by its number, and a lost peer's part
can be taken out exactly.
"""

from collections.abc import Callable, Mapping
from math import inf

from halffull.core.books import Books, Replica
from halffull.core.page import Page

TOKENS_STEP = 256
"""tokens of answers under way that are told of"""
SOON_S = 0.02
LATER_S = 0.1
"""within what time peers hear of first tokens, and of ends: with other news, since each message costs them more than what it says.
In simulated fleets of four routers p99 TTFT is as with 5 ms for both; with 100 ms for first tokens it is 2 to 4 % longer"""
DEFERENCE_S = 0.1
"""seconds by which a replica must be better that is a peer's to fill first. The routers part the replicas evenly: of routers that
hear of each other's requests milliseconds later, two would else send to the same replica, the best one, at once"""
YIELD_S = 0.05
"""a peer whose turn it is hears of what became free, and takes it, within less; then whoever has a request takes it"""
CLAIM_S = 0.15
"""how long a peer's word that its request waits counts; it is repeated at each tick"""
_NOTHING = Page()


class Peers:
    """The ledger of all peers, by name; a name is one run of one router."""

    def __init__(self, books: Books, wake: Callable[[], None]) -> None:
        """`wake` is called when there is something to `take`, and again when it has to be told earlier."""
        self._books = books
        self._wake = wake
        self._changed: dict[str, None] = {}
        self.within_s = inf
        """by when peers must hear of what changed; infinite: nothing did"""
        self._told: dict[str, Page] = {}
        self._heard: dict[str, dict[str, Page]] = {}
        self._numbers: dict[str, int] = {}
        self._claims: dict[str, tuple[float, float]] = {}
        self._yields_until = inf

    @property
    def known(self) -> list[str]:
        """Peers whose pages count."""
        return list(self._heard)

    # --- ours

    def changed(self, replica: Replica) -> None:
        """Our page of a replica changed."""
        self._changed[replica.name] = None
        told = self._told.get(replica.name, _NOTHING).load.waiting_prompt_tokens
        waiting = replica.waiting_prompt_tokens - replica.foreign.waiting_prompt_tokens
        if waiting > told:
            within_s = 0.0  # or peers send to it, too
        elif waiting < told or self._claims:
            within_s = SOON_S
        else:
            within_s = LATER_S
        if within_s < self.within_s:
            self.within_s = within_s
            self._wake()

    def look(self) -> None:
        """Find pages that changed by many tokens of answers under way; to be called a few times a second."""
        for replica in self._books.replicas.values():
            if replica.in_flight:
                told = self._told.get(replica.name, _NOTHING).load.decode_tokens
                if abs(replica.decode_tokens - replica.foreign.decode_tokens - told) >= TOKENS_STEP:
                    self.changed(replica)

    def take(self) -> dict[str, Page]:
        """Return the pages that changed since the last call."""
        pages = {name: self._page(name) for name in self._changed}
        self._changed.clear()
        self.within_s = inf
        for name, page in pages.items():
            _keep(self._told, name, page)
        return pages

    def all(self) -> dict[str, Page]:
        """Return every page that says anything, for a peer that joins."""
        pages = {name: self._page(name) for name in self._books.replicas}
        return {name: page for name, page in pages.items() if page != _NOTHING}

    def joined(self, replica: Replica, now: float) -> None:
        """A replica joined the books: peers may have told of it before; what we told of its namesake is void."""
        for pages in self._heard.values():
            if (page := pages.get(replica.name)) is not None:
                replica.told(_without_load(page), page, now)
        self.changed(replica)

    # --- theirs

    def hear(
        self, peer: str, number: int, pages: Mapping[str, Page], now: float, *, every: bool = False
    ) -> list[Replica]:
        """Take what a peer tells; return the replicas whose books changed. What was overtaken changes nothing.

        `number` grows with each telling. `every`: these are all pages of the peer, and others that it told of are void.
        """
        if number <= self._numbers.get(peer, -1):
            return []
        self._numbers[peer] = number
        heard = self._heard.setdefault(peer, {})
        void = [name for name in heard if name not in pages] if every else []
        changed = [self._replace(heard, name, None, now) for name in void]
        changed += [self._replace(heard, name, page, now) for name, page in pages.items()]
        return [replica for replica in changed if replica is not None]

    def lose(self, peer: str, now: float) -> list[Replica]:
        """Take out all that a peer told; return the replicas whose books changed."""
        heard = self._heard.pop(peer, {})
        self._claims.pop(peer, None)
        self._numbers.pop(peer, None)
        changed = [self._replace(heard, name, None, now) for name in list(heard)]
        return [replica for replica in changed if replica is not None]

    # --- whose turn it is

    def claim(self, peer: str, waits_s: float | None, now: float) -> None:
        """A peer says for how long its oldest request waits; None: none does."""
        if waits_s is None:
            self._claims.pop(peer, None)
        else:
            self._claims[peer] = (now - waits_s, now + CLAIM_S)

    def turn(self, oldest: float | None, now: float) -> bool:
        """Whether what is free now is ours to give: no peer's request waits longer than our oldest.

        All routers hear of the same end; so the request that waits longest gets what it left, not one of each router.
        """
        if oldest is None or all(since >= oldest or until < now for since, until in self._claims.values()):
            return True
        self._yields_until = min(self._yields_until, now + YIELD_S)
        return False

    def yields(self, now: float) -> bool:
        """Whether something is free that is still a peer's to take; to be asked before it is taken out of turn."""
        if self._yields_until < now:
            self._yields_until = inf
        return self._yields_until < inf

    # --- inside

    def _page(self, name: str) -> Page:
        replica = self._books.replicas.get(name)
        return _NOTHING if replica is None else replica.own

    def _replace(self, heard: dict[str, Page], name: str, page: Page | None, now: float) -> Replica | None:
        before = heard.get(name)
        _keep(heard, name, page or _NOTHING)
        replica = self._books.replicas.get(name)
        if replica is not None:
            after = page or _NOTHING
            known = before or _without_load(after)
            done = after.prefilled - known.prefilled
            # A step prefills for several routers: its time is not ours alone.
            if done > 0:
                self._books.learn(replica, done, now)
            replica.told(known, after, now)
        return replica


def _keep(pages: dict[str, Page], name: str, page: Page) -> None:
    """Enter a page; one that says nothing is left out, since names of replicas that have left are without bound."""
    if page == _NOTHING:
        pages.pop(name, None)
    else:
        pages[name] = page


def _without_load(page: Page) -> Page:
    """The same history with nothing in flight: what was freed before we knew the peer is no news."""
    return page._replace(load=_NOTHING.load)
