"""The replicas of this router: puts what discovery, the operator's balance and scrapes say into the books.

The one place where replicas join, change state and leave. `app` makes it; sources call it; the data path is told.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from halffull.api.router_config import Balance, ReplicaBalance
from halffull.core.books import Books, Replica
from halffull.core.health import Verdict
from halffull.core.values import State
from halffull.router.sources.discovery import Endpoint, Endpoints, difference

LOG = logging.getLogger(__name__)


NEUTRAL = ReplicaBalance()


class Host(Protocol):
    """The data path: sends requests to replicas (`proxy.Proxy`)."""

    def add(self, replica: Replica) -> None:
        """It joined."""

    def remove(self, replica: Replica) -> None:
        """It left; requests that it holds may go on."""

    def refresh(self, replica: Replica) -> None:
        """Its state, weight or capacity changed."""


class Follower(Protocol):
    """Who watches each replica (`scrape.Scraper`)."""

    def added(self, replica: Replica) -> None:
        """It is about to join."""

    def removed(self, replica: Replica) -> None:
        """It has left."""


class Fleet:
    """All replicas by name, from endpoints and the operator's balance."""

    def __init__(self, books: Books, host: Host, follower: Follower, now: Callable[[], float]) -> None:
        self._books = books
        self._host = host
        self._follower = follower
        self._now = now
        self._endpoints: dict[str, Endpoint] = {}
        self._balance: Mapping[str, ReplicaBalance] = {}
        self._lapse: asyncio.TimerHandle | None = None
        self.listed = False
        """whether a first complete list of endpoints has come, even an empty one"""
        self._stale_after_s = 5.0
        self._exclude_stale = False

    @property
    def replicas(self) -> Mapping[str, Replica]:
        """All replicas by name."""
        return self._books.replicas

    def found(self, endpoints: Endpoints) -> None:
        """Take the whole set of endpoints as discovery knows it now."""
        changes = difference(self._endpoints, endpoints)
        self._endpoints = dict(endpoints)
        self.listed = True
        for name in changes.removed:
            replica = self.replicas[name]
            self._host.remove(replica)
            self._follower.removed(replica)
        for endpoint in changes.added:
            replica = Replica(endpoint.name, endpoint.host, endpoint.port)
            replica.state = self._state(endpoint)
            self._follower.added(replica)
            self._host.add(replica)
        for endpoint in changes.changed:
            LOG.info("replica %s is %s", endpoint.name, endpoint.state.value)
        if changes.removed or changes.added:
            LOG.info(
                "replicas: %d; joined: %s; left: %s",
                len(endpoints),
                ", ".join(e.name for e in changes.added) or "none",
                ", ".join(changes.removed) or "none",
            )
        self._apply()

    def renew(self) -> None:
        """Make all replicas anew: engines are called in another way from now on."""
        endpoints = self._endpoints
        if endpoints:
            self.found({})
            self.found(endpoints)

    def balance(self, balance: Balance) -> None:
        """Take weights, suspensions and drains; weights and suspensions lapse to neutral in `valid_seconds` from now."""
        self._balance = balance.replicas
        if self._lapse:
            self._lapse.cancel()
            self._lapse = None
        if any(said.weight != 1 or said.suspended or said.distrusted for said in balance.replicas.values()):
            self._lapse = asyncio.get_running_loop().call_later(balance.valid_seconds, self._lapsed)
        self._apply()

    def judge_signals(self, stale_after_s: float, *, exclude: bool) -> None:
        """Take signals for stale after this time; `exclude`: a replica whose signals went stale takes nothing new."""
        self._stale_after_s = stale_after_s
        self._exclude_stale = exclude

    def check_signals(self) -> None:
        """Take out, or back in, what went stale or came back; to be called about once a second."""
        if self._exclude_stale:
            self._apply()

    def signals_state(self, replica: Replica) -> str:
        """`fresh`, `stale`, or `none` where the engine never said anything."""
        if not replica.signals_at:
            return "none"
        return "stale" if self._now() - replica.signals_at > self._stale_after_s else "fresh"

    def _lapsed(self) -> None:
        LOG.warning("weights and suspensions have lapsed: the operator did not renew them")
        self._lapse = None
        self._balance = {name: NEUTRAL.model_copy(update={"drain": said.drain}) for name, said in self._balance.items()}
        self._apply()

    def _state(self, endpoint: Endpoint) -> State:
        if endpoint.state is State.READY and self._balance.get(endpoint.name, NEUTRAL).drain:
            return State.DRAINING
        return endpoint.state

    def _apply(self) -> None:
        """Bring state, weight and suspension of every replica up to date."""
        out = self._taken_out()
        for name, endpoint in self._endpoints.items():
            replica = self.replicas[name]
            said = self._balance.get(name, NEUTRAL)
            replica.weight, replica.distrusted = said.weight, said.distrusted
            if replica.suspended and name not in out and replica.health.verdict is Verdict.WELL:
                replica.health.readmit(self._now())  # with one request, until one has started
            replica.state, replica.suspended = self._state(endpoint), name in out
            self._host.refresh(replica)

    def _taken_out(self) -> frozenset[str]:
        """Names that take nothing new: suspended ones, then stale ones, at most half of the fleet."""
        half = len(self._endpoints) // 2
        wanted = [name for name in self._endpoints if self._balance.get(name, NEUTRAL).suspended]
        if self._exclude_stale:
            stale = (name for name in self._endpoints if self.signals_state(self.replicas[name]) == "stale")
            wanted += [name for name in stale if name not in wanted]
        return frozenset(wanted[:half])
