"""The replicas of this router: puts what discovery, the operator's balance and scrapes say into the books.

The one place where replicas join, change state and leave. `app` makes it; sources call it; the dispatcher is told.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from halffull.api.router_config import Balance, ReplicaBalance
from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.core.values import State
from halffull.router.discovery import Endpoint, Endpoints, difference

LOG = logging.getLogger(__name__)


NEUTRAL = ReplicaBalance()


class Listener(Protocol):
    """Who follows each replica: the scraper, the data path's connections."""

    def added(self, replica: Replica) -> None:
        """It joined."""

    def removed(self, replica: Replica) -> None:
        """It left; exchanges that it holds may go on."""


class Fleet:
    """All replicas by name, from endpoints and the operator's balance."""

    def __init__(self, dispatcher: Dispatcher, now: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._now = now
        self._endpoints: dict[str, Endpoint] = {}
        self._balance: Mapping[str, ReplicaBalance] = {}
        self._lapse: asyncio.TimerHandle | None = None
        self.listeners: list[Listener] = []
        self.listed = False
        """whether a first complete list of endpoints has come, even an empty one"""
        self.stale_after_s = 5.0
        self.exclude_stale = False
        """whether a replica whose signals went stale takes nothing new"""

    @property
    def replicas(self) -> Mapping[str, Replica]:
        """All replicas by name."""
        return self._dispatcher.books.replicas

    def found(self, endpoints: Endpoints) -> None:
        """Take the whole set of endpoints as discovery knows it now."""
        changes = difference(self._endpoints, endpoints)
        self._endpoints = dict(endpoints)
        self.listed = True
        for name in changes.removed:
            replica = self.replicas[name]
            self._dispatcher.remove(replica)
            for listener in self.listeners:
                listener.removed(replica)
        for endpoint in changes.added:
            replica = Replica(endpoint.name, endpoint.host, endpoint.port)
            replica.state = self._state(endpoint)
            for listener in self.listeners:
                listener.added(replica)
            self._dispatcher.add(replica, self._now())
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

    def clear(self) -> None:
        """Forget all replicas: another engine configuration follows."""
        self.found({})
        self.listed = False

    def balance(self, balance: Balance) -> None:
        """Take weights, suspensions and drains; weights and suspensions lapse to neutral in `valid_seconds` from now."""
        self._balance = balance.replicas
        if self._lapse:
            self._lapse.cancel()
            self._lapse = None
        if any(said.weight != 1 or said.suspended for said in balance.replicas.values()):
            self._lapse = asyncio.get_running_loop().call_later(balance.valid_seconds, self._lapsed)
        self._apply()

    def scraped(self, replica: Replica) -> None:
        """Signals or capacity of a replica changed."""
        self._dispatcher.refresh(replica, self._now())

    def check_signals(self) -> None:
        """Take out, or back in, what went stale or came back; to be called about once a second."""
        if self.exclude_stale:
            self._apply()

    def signals_state(self, replica: Replica) -> str:
        """`fresh`, `stale`, or `none` where the engine never said anything."""
        if not replica.signals_at:
            return "none"
        return "stale" if self._now() - replica.signals_at > self.stale_after_s else "fresh"

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
        now = self._now()
        for name, endpoint in self._endpoints.items():
            replica = self.replicas[name]
            replica.weight = self._balance.get(name, NEUTRAL).weight
            state, suspended = self._state(endpoint), name in out
            # A suspicion of the data path stands until discovery says something new.
            if replica.state is not state and not (replica.state is State.SUSPECT and state is State.READY):
                replica.state = state
            replica.suspended = suspended
            self._dispatcher.refresh(replica, now)

    def _taken_out(self) -> frozenset[str]:
        """Names that take nothing new: suspended ones, then stale ones, at most half of the fleet."""
        half = len(self._endpoints) // 2
        wanted = [name for name in self._endpoints if self._balance.get(name, NEUTRAL).suspended]
        if self.exclude_stale:
            stale = (name for name in self._endpoints if self.signals_state(self.replicas[name]) == "stale")
            wanted += [name for name in stale if name not in wanted]
        return frozenset(wanted[:half])
