"""Which requests that were sent and have not started go to another replica, as the fleet turned out otherwise than was thought.

Kept by `dispatch`, in the router and in the simulator. Requests leave a replica that takes nothing new for good, whatever the
policy. Where the policy wants it (`Policy.max_moves`), streamed ones also leave the queue of a replica for one that would
start them earlier by more than a margin. A plain answer's start cannot be seen: it stays unless its replica leaves.
"""

from collections.abc import Iterator
from itertools import islice

from halffull.core.books import Replica, prefill_work
from halffull.core.budget import Budget
from halffull.core.contracts import Context
from halffull.core.exchange import Exchange
from halffull.core.placement import Placement
from halffull.core.values import State

EVERY_S = 0.2
MARGIN_S = 0.5
MARGIN = 0.3
OWN_PREFILLS = 2
"""a move must gain more than each of these: seconds, a part of the wait that is left, and times the request's own prefill.
Predictions err, a prefill under way is lost, and so is what a prefix cache was to keep of it"""
SHARE_PERCENT = 50.0
LEAST = 5
"""requests moved to gain time, of all of ten seconds and in any case"""
MOST = 3
"""times that one request is moved"""
LOOKS = 8
"""requests of one replica that are looked at, the last ones of its queue: they gain most"""


class Redispatch:
    """The requests that wait in engines, in the order in which they were sent."""

    def __init__(self) -> None:
        self._sent: dict[Replica, dict[Exchange, None]] = {}
        self._budget = Budget(SHARE_PERCENT, LEAST)
        self._looked_at = 0.0

    def arrived(self, now: float) -> None:
        """A request came: the share of moves is of these."""
        self._budget.arrived(now)

    def sent(self, exchange: Exchange, replica: Replica) -> None:
        """It waits there for its first token."""
        waiting = self._sent.setdefault(replica, {})
        waiting[exchange] = None
        replica.first_work = _first_work(waiting)

    def left(self, exchange: Exchange, replica: Replica) -> None:
        """It waits there no longer; nothing if it did not."""
        waiting = self._sent.get(replica)
        if waiting:
            waiting.pop(exchange, None)
            replica.first_work = _first_work(waiting)

    def moves(self, placement: Placement, context: Context, *, queued: bool) -> Iterator[tuple[Exchange, Replica]]:
        """Name moves, each to be made before the next is asked for; `queued`: requests wait in the router, too.

        Then no replica has room to spare, and only those that leave give requests away.
        """
        if not 0 <= context.now - self._looked_at < EVERY_S:
            self._looked_at = context.now
            for replica, waiting in list(self._sent.items()):
                if not waiting:
                    del self._sent[replica]
                elif _leaving(replica, context):
                    yield from _away(waiting, placement, context, plain=True)
                elif replica.suspended:
                    yield from _away(waiting, placement, context, plain=False)
                elif placement.policy.max_moves and not queued:
                    yield from self._earlier(replica, waiting, placement, context)

    def _earlier(
        self, replica: Replica, waiting: dict[Exchange, None], placement: Placement, context: Context
    ) -> Iterator[tuple[Exchange, Replica]]:
        """Name those that another replica would start earlier, from the end of the replica's queue."""
        behind_work = behind_tokens = behind = 0
        for exchange in list(islice(reversed(waiting), LOOKS)):
            request, work = exchange.request, prefill_work(exchange.request.prompt_tokens, exchange.cached_tokens)
            if request.stream and _movable(exchange, placement.policy.max_moves):
                here = start_s(
                    replica,
                    context,
                    work=-behind_work,
                    tokens=replica.waiting_prompt_tokens - behind_tokens,
                    requests=replica.in_flight - behind,
                )
                others = placement.others(exchange, context) if here > MARGIN_S else ()
                waits = [self._there(other, exchange, context) for other in others]
                least = max(MARGIN_S, MARGIN * here, OWN_PREFILLS * work / replica.prefill_rate)
                if not waits or here - min(waits) <= least:
                    return
                if not self._budget.take(context.now):
                    return
                yield exchange, others[waits.index(min(waits))]
            else:
                behind_work += work
                behind_tokens += request.prompt_tokens
                behind += 1

    def _there(self, replica: Replica, exchange: Exchange, context: Context) -> float:
        """Return the seconds until a request would start that were sent there now; longer where a peer fills the replica first."""
        request = exchange.request
        cached = context.books.prefixes.matches(request).get(replica.name, 0)
        return replica.deference_s + start_s(
            replica,
            context,
            work=prefill_work(request.prompt_tokens, cached),
            tokens=replica.waiting_prompt_tokens + request.prompt_tokens,
            requests=replica.in_flight + 1,
        )


def start_s(replica: Replica, context: Context, *, work: int, tokens: int, requests: int) -> float:
    """Return the seconds until a request starts that ends a queue of prompts of `tokens` and `requests` in flight, itself among them.

    `work`: what the queue has less than the replica's now (negative), or more. The larger of two waits: for compute; and for
    memory and a place in the batch, which answers leave as long as they last on average.
    """
    missing = (requests - replica.max_sequences) / max(replica.decoding, 1)
    if replica.kv_tokens is not None:
        room = replica.kv_tokens - replica.decode_tokens
        missing = max(missing, (tokens - room) / max(replica.decode_tokens, 1))
    return max(replica.prefill_s(work, context.now), missing * context.books.decode_left_s)


def _first_work(waiting: dict[Exchange, None]) -> int:
    first = next(iter(waiting), None)
    return 0 if first is None else prefill_work(first.request.prompt_tokens, first.cached_tokens)


def _away(
    waiting: dict[Exchange, None], placement: Placement, context: Context, *, plain: bool
) -> Iterator[tuple[Exchange, Replica]]:
    """Name all that can be taken elsewhere, first come, first served; `plain`: plain answers, too."""
    for exchange in list(waiting):
        able = _movable(exchange, MOST) and (plain or exchange.request.stream)
        others = placement.others(exchange, context) if able else ()
        if others:
            yield exchange, placement.policy.choose(exchange.request, others, context)


def _leaving(replica: Replica, context: Context) -> bool:
    """Whether it takes nothing new for good: it drains, is down, or has left the fleet."""
    return replica.state is not State.READY or context.books.replicas.get(replica.name) is not replica


def _movable(exchange: Exchange, most: int) -> bool:
    """Whether it may be sent again, does not need this very replica, and was moved less than `most` times."""
    return exchange.request.resendable and exchange.request.pinned is None and exchange.moves < most
