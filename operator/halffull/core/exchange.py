"""One request's life as a state machine. `dispatch` moves it; the router and the simulator carry out what it says."""

from dataclasses import replace
from enum import Enum
from typing import Any

from halffull.core.books import Replica
from halffull.core.errors import Failure
from halffull.core.values import Request


class Phase(Enum):
    """Where a request stands. Back edges: WAITING or CONNECTING to QUEUED when its replica failed it, WAITING to
    CONNECTING when it is moved, STREAMING to QUEUED when it goes on elsewhere.
    """

    QUEUED = "queued"
    """waits in the router for a replica"""
    CONNECTING = "connecting"
    """has a replica, is not on the wire"""
    WAITING = "waiting"
    """sent, not started"""
    STREAMING = "streaming"
    """its first token has come"""
    DONE = "done"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing further happens."""
        return self is Phase.DONE or self is Phase.FAILED


class Exchange:
    """A request, its replica, and what the books hold for it. Compared by identity."""

    __slots__ = (
        "asked",
        "attempts",
        "avoid",
        "before",
        "cached_tokens",
        "failure",
        "held_back",
        "host",
        "moves",
        "offered",
        "phase",
        "presumed",
        "replica",
        "request",
        "sent_at",
        "started_at",
        "tokens",
    )

    def __init__(self, request: Request, host: Any = None) -> None:
        self.asked = request
        """as it came"""
        self.request = request
        """as its replica gets it"""
        self.host = host
        """the object of the router or the simulator that carries out this exchange"""
        self.phase = Phase.QUEUED
        self.replica: Replica | None = None
        self.attempts = 0
        """times it was given to a replica"""
        self.moves = 0
        """times it was taken from a replica that had not failed it"""
        self.avoid: frozenset[str] = frozenset()
        """names of replicas that failed it"""
        self.cached_tokens = 0
        """tokens of its prompt that its replica is taken to hold in the prefix cache"""
        self.offered = False
        """it waits, and every candidate has been looked at for it"""
        self.sent_at = 0.0
        self.started_at: float | None = None
        """when its first token was seen, seconds"""
        self.presumed = False
        """the books take it as started although nothing was seen: its answer is not streamed"""
        self.held_back = False
        """nothing is read of its stream, since its client does not read"""
        self.tokens = 0
        """tokens of its answer that its replica has generated so far"""
        self.before = 0
        """tokens of its answer that were generated elsewhere: part of the prompt where it goes on"""
        self.failure: Failure | None = None

    @property
    def generated(self) -> int:
        """Tokens of its answer so far."""
        return self.before + self.tokens

    def hold_back(self, *, held: bool) -> None:
        """Its client has stopped reading, or reads again: what is not read meanwhile is no silence of its replica."""
        if self.replica is not None and self.request.stream and held is not self.held_back:
            self.held_back = held
            self.replica.held_back += 1 if held else -1

    def goes_on(self, generated: int) -> None:
        """It goes on elsewhere, and what the replica before has generated is there part of the prompt."""
        self.before += generated
        self.request = replace(self.asked, prompt_tokens=self.asked.prompt_tokens + self.before)
