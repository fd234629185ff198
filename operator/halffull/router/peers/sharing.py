"""Tells other routers of the same ModelDeployment what this one does, and puts what they tell into the books.

`app` makes one `Sharing` where the command line names peers. The ledger itself is `core.peers`, a stream is a `link`.
A request that was sent is told at once, first tokens and ends wait a moment for company, and all of it is told at most once per
millisecond and peer, so that telling costs a bounded share of a core however many requests and peers there are; later pages replace
earlier ones. Nothing here waits for a peer. What peers tell is entered when it matters: before a request is placed, at once while one
waits for a replica, and a few times a second.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from halffull.core.books import Replica
from halffull.core.contracts import Rng
from halffull.core.peers import DEFERENCE_S, Peers
from halffull.router.peers.link import Link, News, Scraped, Stored, Told, framed
from halffull.router.proxy import Proxy
from halffull.router.signals.scrape import Scraper

LOG = logging.getLogger(__name__)
GAP_PER_PEER_S = 0.001
LOOK_TICKS = 4
"""five times a second what peers told is read in any case, and answers under way are looked at"""
SHARE_OUT_TICKS = 20
"""once a second the replicas are parted anew"""
ALIVE_S = 1.0
"""something is told at least so often"""
SILENCE_S = 3.0
"""a peer that tells nothing for so long is dropped"""
EXPIRY_S = 2.0
"""... and what it told of counts so long after its stream ended: a router that dies takes its requests with it"""
HANDSHAKE_S = 5.0
RETRY_S = 1.0
RETRY_MOST_S = 15.0
"""between two attempts to connect: the first, doubling to the last while the other side is not one of us"""
STRANGERS = 128
"""streams that have not proved themselves yet; of more, the oldest ends"""

Address = tuple[str, int] | Path


@dataclass(slots=True)
class Counters:
    """What happened so far."""

    told: int = 0
    """messages with pages, to all peers"""
    heard: int = 0
    dropped: int = 0
    """streams that ended, for whatever reason, after the peer had proved itself"""
    refused: int = 0
    """streams that ended before"""


class Sharing:
    """The peers of one router. To be made inside its running loop."""

    def __init__(
        self,
        name: str,
        proxy: Proxy,
        scraper: Callable[[], Scraper],
        *,
        token: Callable[[], bytes | None],
        now: Callable[[], float],
        rng: Rng,
    ) -> None:
        """`name`: of this run of this router, unlike any other; `token` None: nobody is let in."""
        self.name = name
        self.token = token
        self.counters = Counters()
        self.links: dict[str, Link] = {}
        """streams that work, by name of the peer"""
        self.ledger = Peers(proxy.dispatcher.books, self._wake)
        proxy.dispatcher.peers = self.ledger
        proxy.sharing = self
        self._proxy = proxy
        self._scraper = scraper
        self._now = now
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._told_at = self._read_at = 0.0
        self._claimed = False
        self._ticks = 0
        self._telling: asyncio.Handle | None = None
        self._opening: dict[Link, None] = {}
        self._dialing: dict[Address, asyncio.Task[None]] = {}
        self._expiring: dict[str, asyncio.TimerHandle] = {}
        self._owners: dict[str, bool] = {}

    # --- for `app`

    async def listen(self, address: Address) -> asyncio.Server:
        """Accept peers. Raises OSError where the address is taken."""
        if isinstance(address, Path):
            return await self._loop.create_unix_server(self._accept, address)
        return await self._loop.create_server(self._accept, *address)

    def found(self, addresses: Iterable[Address]) -> None:
        """Keep a stream to the routers at these addresses; those that are open to others go on."""
        wanted = set(addresses)
        for address in self._dialing.keys() - wanted:
            self._dialing.pop(address).cancel()
        for address in wanted - self._dialing.keys():
            self._dialing[address] = self._loop.create_task(self._dial(address))

    def close(self) -> None:
        """Leave: peers take out what this router told."""
        self.found(())
        for link in [*self.links.values(), *self._opening]:
            link.drop("this router ends")

    def owns(self, replica: Replica) -> bool:
        """Whether it is this router that asks the engine for its metrics: one beside it does, else the hash decides."""
        owned = self._owners.get(replica.name)
        if owned is None:
            routers = {link.peer: link.there for link in self.links.values()}
            beside = any(link.here == replica.host for link in self.links.values() if link.here)
            near = [peer for peer, host in routers.items() if (host == replica.host if host else beside)]
            if beside:
                near.append(self.name)
            owned = owner(replica.name, near or [*routers, self.name]) == self.name
            self._owners[replica.name] = owned
        return owned

    def scraped(self, replica: Replica) -> None:
        """The engine told this router something of itself."""
        if self.links and replica.signals is not None:
            self._send(framed(self._scrape(replica, replica.signals_at)))

    # --- for `proxy`

    def catch_up(self) -> None:
        """Enter what peers have told: a request is about to be placed."""
        if self._now() - self._read_at >= GAP_PER_PEER_S * len(self.links):
            self._read()

    def attend(self) -> None:
        """A request waits: from now on hear at once of what peers' requests leave free."""
        for link in self.links.values():
            link.attend()

    def remembered(self, response: str, replica: str) -> None:
        """A replica made a stored response: tell the others."""
        if self.links:
            self._send(framed(Stored({response: replica})))

    def tick(self) -> None:
        """Time has passed; called every 50 ms."""
        self._ticks += 1
        now = self._now()
        if self._ticks % LOOK_TICKS == 0:
            self._look(now)
        waiting = len(self._proxy.dispatcher.queue) > 0
        for link in self.links.values():
            link.attend() if waiting else link.rest()
        if self._claimed or waiting or now - self._told_at >= ALIVE_S:
            self._tell()

    # --- for `link`

    def ready(self, link: Link) -> None:
        """A peer has proved itself: tell it everything. Of two streams the one stays that the greater name dialed."""
        self._opening.pop(link, None)
        greater = max(self.name, link.peer)
        other = self.links.get(link.peer)
        if other is not None:
            if self._dialer(other) == greater != self._dialer(link):
                link.drop("there is a stream already")
                return
            self.links[link.peer] = link
            other.drop("there is a stream already")
        else:
            LOG.info("peer %s at %s joined", link.peer, link.there or "a Unix socket")
            self.links[link.peer] = link
        self._owners.clear()
        if (expiry := self._expiring.pop(link.peer, None)) is not None:
            expiry.cancel()
        self._tell()
        self._number += 1
        greeting = [framed(Told(self._number, every=True, waits_s=self._waits_s(), pages=self.ledger.all()))]
        greeting += [framed(self._scrape(r, r.signals_at)) for r in self._proxy.dispatcher.books.replicas.values()
                     if r.signals is not None]  # fmt: skip
        greeting.append(framed(Stored(dict(self._proxy.made_by))))
        link.send(b"".join(greeting))

    def heard(self, link: Link, news: Sequence[News]) -> None:
        """Put into the books what a peer tells; of several pages of one replica the last counts."""
        proxy, now = self._proxy, self._now()
        if self.links.get(link.peer) is not link:
            return
        told: Told | None = None
        for one in news:
            if isinstance(one, Told):
                self.counters.heard += 1
                if told is not None and not one.every:
                    one.pages = told.pages | one.pages
                    one.every = told.every
                told = one
            elif isinstance(one, Scraped):
                replica = proxy.dispatcher.books.replicas.get(one.replica)
                if replica is not None:
                    self._scraper().told(replica, one.signals, now - one.age_s, one.models, one.adapters)
            else:
                for response, maker in one.responses.items():
                    proxy.remember(response, maker, share=False)
        if told is not None:
            changed = self.ledger.hear(link.peer, told.number, told.pages, now, every=told.every)
            self.ledger.claim(link.peer, told.waits_s, now)
            proxy.carry_out(proxy.dispatcher.heard(changed, now))

    def lost(self, link: Link, why: str) -> None:
        """A stream is over: what its peer told of counts a little longer."""
        if link in self._opening or not link.proved:
            self._opening.pop(link, None)
            if link.peer != self.name:
                self.counters.refused += 1
                LOG.info("no peer at %s: %s", link.there or "a Unix socket", why)
        elif self.links.get(link.peer) is link:
            LOG.info("peer %s is lost: %s", link.peer, why)
            self.counters.dropped += 1
            del self.links[link.peer]
            self._owners.clear()
            self.ledger.claim(link.peer, None, self._now())
            self._expiring[link.peer] = self._loop.call_later(EXPIRY_S, self._expire, link.peer)

    def _read(self) -> None:
        self._read_at = self._now()
        for link in list(self.links.values()):  # some may end
            link.take()

    # --- telling

    def _wake(self) -> None:
        """There is something to tell, or it must be told earlier."""
        if not self.links:
            return
        if self._telling is not None:
            self._telling.cancel()
        wait_s = max(self.ledger.within_s, self._told_at + GAP_PER_PEER_S * len(self.links) - self._now())
        self._telling = self._loop.call_later(wait_s, self._tell) if wait_s else self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        """Tell all peers what changed."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        pages = self.ledger.take()
        if self.links:
            self._number += 1
            self._told_at = self._now()
            waits_s = self._waits_s()
            self._claimed = waits_s is not None
            self.counters.told += len(self.links)
            self._send(framed(Told(self._number, every=False, waits_s=waits_s, pages=pages)))

    def _send(self, data: bytes) -> None:
        for link in list(self.links.values()):
            link.send(data)

    def _waits_s(self) -> float | None:
        oldest = self._proxy.dispatcher.queue.oldest
        return None if oldest is None else self._now() - oldest

    def _scrape(self, replica: Replica, at: float) -> Scraped:
        if replica.signals is None:
            raise ValueError(replica.name)
        return Scraped(replica.name, self._now() - at, replica.signals, replica.models, replica.adapters.served)

    # --- time

    def _look(self, now: float) -> None:
        """Do what need not be done at every tick."""
        self._read()
        if self._ticks % SHARE_OUT_TICKS == 0:
            self._share_out()
        if self.links:
            self.ledger.look()
        for link in [*self.links.values(), *self._opening]:
            if now - link.heard_at > (SILENCE_S if link.proved else HANDSHAKE_S):
                link.drop("it is silent")

    def _share_out(self) -> None:
        """Part the replicas evenly among the routers, each to fill its own first: all see the same names, and part them alike."""
        routers = sorted([*self.links, self.name])
        replicas = self._proxy.dispatcher.books.replicas
        for place, name in enumerate(sorted(replicas)):
            mine = routers[place % len(routers)] == self.name
            replicas[name].deference_s = 0.0 if mine else DEFERENCE_S
        if len(self._owners) > len(replicas):  # some have left
            self._owners.clear()

    def _expire(self, peer: str) -> None:
        """A lost peer did not come back."""
        del self._expiring[peer]
        now = self._now()
        self._proxy.carry_out(self._proxy.dispatcher.heard(self.ledger.lose(peer, now), now))

    # --- connections

    def _accept(self) -> Link:
        return self._open(dialed=False)

    def _open(self, *, dialed: bool) -> Link:
        link = Link(self, self._now, dialed=dialed)
        strangers = [other for other in self._opening if not other.dialed]
        if len(strangers) >= STRANGERS:
            strangers[0].drop("too many others wait")
        self._opening[link] = None
        return link

    async def _dial(self, address: Address) -> None:
        """Keep a stream to the router at this address, unless it is this one, or has a stream to us."""
        peer, pause_s = "", RETRY_S
        while peer != self.name:
            if peer not in self.links:
                link = self._open(dialed=True)
                try:
                    with suppress(OSError, TimeoutError, UnicodeError):  # the last: it can be no name
                        async with asyncio.timeout(HANDSHAKE_S):
                            await self._connect(link, address)
                        await link.closed
                finally:  # also where the address is not wanted any more; what is open by now goes on
                    if link.closing:
                        self._opening.pop(link, None)
                peer = link.peer
                pause_s = RETRY_S if link.proved else min(2 * pause_s, RETRY_MOST_S)
            else:
                pause_s = RETRY_S
            await asyncio.sleep(pause_s * (0.75 + 0.5 * self._rng.random()))

    async def _connect(self, link: Link, address: Address) -> None:
        if isinstance(address, Path):
            await self._loop.create_unix_connection(lambda: link, str(address))
        else:
            await self._loop.create_connection(lambda: link, *address)

    def _dialer(self, link: Link) -> str:
        return self.name if link.dialed else link.peer


def owner(replica: str, routers: Iterable[str]) -> str:
    """Return the one of several routers that a replica falls to: rendezvous hashing, so that few change when one leaves."""
    return max(routers, key=lambda router: blake2b(f"{router}\0{replica}".encode(), digest_size=8).digest())


def status(sharing: Sharing | None) -> Mapping[str, object]:
    """Return what `/status` says of the peers."""
    if sharing is None:
        return {"connected": [], "counted": 0}
    connected = [{"router": name, "address": link.there or None} for name, link in sorted(sharing.links.items())]
    return {"router": sharing.name, "connected": connected, "counted": len(sharing.ledger.known)}
