"""One request of a simulated run: what it asks, where it stands, what became of it. Made by `setting`, lived by `simulation`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from halffull.core.exchange import Exchange
from halffull.sim.engine_model import EngineSequence

if TYPE_CHECKING:
    from halffull.sim.virtual_engine import Page


@dataclass(slots=True, eq=False)
class Demand:
    """The first part is what clients ask, the second is the run's, the third is what is measured."""

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

    exchange: Exchange | None = None
    sequence: EngineSequence | None = None
    page: "Page | None" = None
    """where its router books it now"""
    cached_estimate: int = 0
    """tokens of its prompt that the books take its replica to have cached"""
    advancing: bool = False
    """whether its replica's books grow by one token a step for it"""

    first: float | None = None
    """when its first token came"""
    ended: float | None = None
    """when its answer was complete"""
    failure: str = ""
    """reason of its failure"""
    moves: int = 0
    """times that it was moved before it started"""
    preemptions: int = 0
    cached_tokens: int = 0
    replica: int = -1
    """index of the replica that ran it at last"""
