"""One request of a simulated run: what it asks, where it stands, what became of it. Made by `setting`, lived by `simulation`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from halffull.core.exchange import Exchange
from halffull.sim.engine_model import EngineSequence

if TYPE_CHECKING:
    from halffull.sim.virtual_engine import Page


@dataclass(slots=True, eq=False)
class Demand:
    """The first parts are what clients ask, then come what the run needs and what is measured."""

    number: int
    arrived: float
    """seconds of simulated time"""
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]
    """names of the prompt's full blocks"""
    estimate: int
    """what the router takes the prompt's tokens for"""
    stream: bool
    priority: int
    caller: str
    session: str
    router: float
    """which router it meets: a number in [0, 1)"""

    think_s: float = 0.0
    """time that its client thinks before it asks"""
    next_turn: "Demand | None" = None
    """what the client asks once it has this answer; arrives then"""

    exchange: Exchange | None = None
    sequence: EngineSequence | None = None
    page: "Page | None" = None
    """where its router books it now"""
    advancing: bool = False
    """whether its replica's books grow by one token a step for it"""

    first: float | None = None
    """when its first token came"""
    ended: float | None = None
    """when its answer was complete"""
    failure: str = ""
    """reason of its failure"""
    preemptions: int = 0
    cached_tokens: int = 0
    replica: int = -1
    """index of the replica that ran it at last"""
