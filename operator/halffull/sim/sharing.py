"""How routers know of each other's requests: the pages of one replica, brought together. Called by `simulation`."""

from collections.abc import Sequence

from halffull.core.books import Replica
from halffull.sim.virtual_engine import Page

Load = tuple[int, int, int, int, int]


def share(pages: Sequence[Page]) -> None:
    """Make each page hold its own requests and, as they are now, those of all the others."""
    own = [_minus(_load(page.replica), page.foreign) for page in pages]
    total = tuple(map(sum, zip(*own, strict=True)))
    for page, mine in zip(pages, own, strict=True):
        foreign = _minus((total[0], total[1], total[2], total[3], total[4]), mine)
        change = _minus(foreign, page.foreign)
        replica = page.replica
        replica.in_flight += change[0]
        replica.prefill_tokens += change[1]
        replica.waiting_prompt_tokens += change[2]
        replica.decoding += change[3]
        replica.decode_tokens += change[4]
        page.foreign = foreign


def _load(replica: Replica) -> Load:
    return (
        replica.in_flight,
        replica.prefill_tokens,
        replica.waiting_prompt_tokens,
        replica.decoding,
        replica.decode_tokens,
    )


def _minus(one: Load, other: Load) -> Load:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2], one[3] - other[3], one[4] - other[4]
