"""What a replica's metrics and the routers' books say of each other: load of others, lies, stalls. Called by `balance`.

Metrics are a little older or younger than the books, so only what holds in every look of half a minute counts: the least
that the engine held beyond the books is load of others that does not pass our routers.
"""

from dataclasses import dataclass
from statistics import fmean

WINDOW_S = 30.0
"""time over which looks are compared"""
LOOKS = 3
"""least number of looks in it"""
TOLERANCE = 3.0
"""requests by which metrics and books may differ in every look without meaning anything"""
SPOKEN = 200.0
"""tokens that routers saw of an engine whose counters stand still: it lies"""
OF_OTHERS = 0.9
"""an engine that made no more than this over the tokens that routers saw has no load of others"""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one replica; None: not known."""

    at: float
    held: float | None
    """requests that the engine says it runs or keeps waiting"""
    made: float | None
    """tokens that it says it has computed and generated so far"""
    booked: int | None
    """requests that all routers have there"""
    seen: int | None
    """tokens of answers that started, prompts included, that all routers have seen so far"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the looks of a window say together."""

    known: bool = False
    """whether there are enough of them to say anything of others' load"""
    foreign: float = 0.0
    """requests that others have there"""
    held: float | None = None
    """requests it held on average"""
    lie: str = ""
    """what is wrong with its metrics, for people; empty: nothing is known to be"""
    stuck: str = ""
    """why it is taken for standing still; empty: it is not"""


def kept(looks: tuple[Look, ...], look: Look) -> tuple[Look, ...]:
    """Return the looks that still count, with a new one: as many as cover the window."""
    looks = (*looks, look)
    while len(looks) > LOOKS and look.at - looks[1].at >= WINDOW_S:
        looks = looks[1:]
    return looks


def judge(looks: tuple[Look, ...]) -> Finding:
    """Compare metrics and books over the window."""
    if len(looks) < LOOKS or looks[-1].at - looks[0].at < WINDOW_S:
        return Finding()
    held = [look.held for look in looks if look.held is not None]
    booked = [look.booked for look in looks if look.booked is not None]
    made = [look.made for look in looks if look.made is not None]
    seen = [look.seen for look in looks if look.seen is not None]
    all_held, all_booked = len(held) == len(looks), len(booked) == len(looks)
    moved = made[-1] - made[0] if len(made) == len(looks) else None
    spoke = seen[-1] - seen[0] if len(seen) == len(looks) else None
    busy = all_held and all_booked and all(h or b for h, b in zip(held, booked, strict=True))
    stuck = lie = ""
    if busy and moved == 0 and not spoke:
        stuck = f"holds {max(held[-1], booked[-1]):.0f} requests and has made no token for {WINDOW_S:.0f} s"
    elif moved == 0 and spoke is not None and spoke >= SPOKEN:
        lie = "says that it makes no token, and routers get some"
    if not (all_held and all_booked):
        return Finding(lie=lie, stuck=stuck, held=fmean(held) if held else None)
    excess = [h - b for h, b in zip(held, booked, strict=True)]
    foreign = max(0.0, min(excess))
    if not stuck and not lie and max(excess) < -max(TOLERANCE, min(booked) / 2):
        lie = f"says that it holds {held[-1]:.0f} requests, and routers have {booked[-1]} there"
    alone = moved is not None and spoke is not None and spoke >= SPOKEN and moved * OF_OTHERS <= spoke
    if not stuck and not lie and foreign > TOLERANCE and alone:
        lie = f"says that it holds {foreign:.0f} requests more than routers have there, and makes no token for them"
    return Finding(known=not lie, foreign=0.0 if lie or stuck else foreign, held=fmean(held), lie=lie, stuck=stuck)
