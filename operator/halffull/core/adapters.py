"""Which replicas a request for a LoRA adapter goes to: those that serve it, and of these those that have it in their GPU's memory.

Pure; `placement` narrows the candidates with it before the policy picks. An engine keeps a few adapters on the GPU and loads
others from the host when asked, which costs a request its time and may push out an adapter that others need.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from math import ceil
from typing import TYPE_CHECKING

from halffull.core.values import State

if TYPE_CHECKING:
    from halffull.core.books import Replica

LOAD_FACTOR = 1.25
"""requests in flight that a replica takes for an adapter that it holds, over the average of all that serve the adapter"""
SPARE = 4
"""... and this many whatever the others have: so few run side by side without delay"""
SLOTS = 4
"""adapters that an engine is taken to hold where it does not say how many"""


class Adapters:
    """The adapters of one replica."""

    __slots__ = ("_sent", "served")

    def __init__(self) -> None:
        self.served: tuple[str, ...] = ()
        """from the engine's own list"""
        self._sent: OrderedDict[str, None] = OrderedDict()

    def sent(self, adapter: str, slots: int) -> None:
        """A request for it goes there; of more than `slots`, the one that was not asked for the longest time is forgotten."""
        self._sent[adapter] = None
        self._sent.move_to_end(adapter)
        while len(self._sent) > slots:
            self._sent.popitem(last=False)

    def __contains__(self, adapter: str) -> bool:
        """Whether it is among those that were asked for last."""
        return adapter in self._sent


def able(adapter: str, candidates: Sequence["Replica"], fleet: Iterable["Replica"]) -> Sequence["Replica"]:
    """Return the candidates that serve the adapter; none: those that do are no candidates now, so the request waits.

    Where no replica is known to serve it, all candidates: an engine has the last word on what it serves.
    """
    serving = [replica for replica in candidates if adapter in replica.adapters.served]
    if serving or any(adapter in replica.adapters.served and replica.state is State.READY for replica in fleet):
        return serving
    return candidates


def nearest(adapter: str, serving: Sequence["Replica"]) -> Sequence["Replica"]:
    """Return those of `serving` that hold the adapter and are not overloaded for it, else all of them."""
    bound = LOAD_FACTOR * (sum(replica.in_flight for replica in serving) + 1) / sum(r.weight for r in serving)
    held = [r for r in serving if r.in_flight < max(ceil(bound * r.weight), SPARE) and holds(adapter, r)]
    return held or serving


def holds(adapter: str, replica: "Replica") -> bool:
    """Whether the replica was asked for the adapter among its last ones, or its engine says that it runs or waits there."""
    return adapter in replica.adapters or (replica.signals is not None and adapter in replica.signals.adapters)


def take(adapter: str, replica: "Replica") -> None:
    """A request for the adapter goes to the replica."""
    replica.adapters.sent(adapter, (replica.signals and replica.signals.adapter_slots) or SLOTS)
