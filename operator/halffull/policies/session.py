"""Policy `session`: requests of one session stay on one replica, unless it is overloaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from typing import Annotated

from halffull.core.books import Replica
from halffull.core.bounds import Bounds
from halffull.core.choice import least
from halffull.core.contracts import Context, Policy
from halffull.core.values import Request

MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class SessionParameters:
    """Parameters of policy `session`."""

    load_factor: Annotated[float, Bounds(gt=1, le=10)] = 1.25
    """requests in flight that a replica takes of its sessions, over the fleet's average"""


class Session(Policy):
    """Intent: turns of one conversation find their prefix cached, with no index of prefixes. Inputs: the session of the
    request (header x-halffull-session, else `user`), n, weights. Cost: one pass over the candidates.

    Use it for chats behind several routers that share nothing: all of them agree where a session is. Do not use it
    where few sessions make most of the load. Requests without a session: the fewest in flight.

    When a replica leaves, only its own sessions move. One that has more than the load factor allows is passed over.
    Source: consistent hashing with bounded loads (Mirrokni et al., arXiv 1608.01350) over rendezvous hashing.
    """

    def __init__(self, parameters: SessionParameters) -> None:
        self._factor = parameters.load_factor
        self._hashes: dict[str, int] = {}

    def choose(self, request: Request, candidates: Sequence[Replica], context: Context) -> Replica:
        """Return the session's first replica that is not overloaded."""
        if not request.session:
            return least(candidates, [replica.in_flight / replica.weight for replica in candidates], context)
        total, weights = sum(r.in_flight for r in candidates) + 1, sum(r.weight for r in candidates)
        share = self._factor * total / weights
        session = _hash(request.session)
        room = [replica for replica in candidates if replica.in_flight < ceil(share * replica.weight)]
        return max(room or candidates, key=lambda replica: (self._rank(session, replica.name), replica.name))

    def removed(self, replica: Replica) -> None:
        """Forget its hash."""
        self._hashes.pop(replica.name, None)

    def _rank(self, session: int, name: str) -> int:
        place = self._hashes.get(name)
        if place is None:
            place = self._hashes[name] = _hash(name)
        mixed = ((session ^ place) * 0x9E3779B97F4A7C15) & MASK  # one round of splitmix64: cheap and even
        mixed = ((mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93) & MASK
        return mixed ^ (mixed >> 32)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
