"""What can go wrong with an engine, and what is done: the one table. `router.passage` and the simulator name the fault.

Where the answer has not started, the request goes back to the queue with its arrival and is tried elsewhere; where it has, the
stream ends with an error event in its API's form. Which engine shows which fault how: `engines`, and docs/errors.md.
"""

from dataclasses import dataclass
from enum import Enum

from halffull.core.errors import Reason


class Blame(Enum):
    """What a fault says of the replica."""

    BUSY = "busy"
    """it lives and takes no more: a pause, and a share of the retry budget"""
    FAILED = "failed"
    """it may be broken: a pause, and after several in a row it is taken out"""
    NONE = "none"
    """nothing new: it is known to be out"""


@dataclass(frozen=True, slots=True)
class Treatment:
    """One row of the table."""

    reason: Reason
    """of the error, if the client sees one"""
    message: str
    blame: Blame


class Fault(Enum):
    """What happened."""

    UNREACHABLE = Treatment(Reason.ENGINE_UNREACHABLE, "The engine could not be reached", Blame.FAILED)
    """connect refused, reset or timed out"""
    BUSY = Treatment(Reason.ENGINE_BUSY, "Every engine is busy", Blame.BUSY)
    """503 or 429 before the answer"""
    BUSY_IN_STREAM = Treatment(Reason.ENGINE_BUSY, "The engine took no request", Blame.BUSY)
    """200 whose first event is an error with code 503 or 429"""
    ABORTED = Treatment(Reason.ENGINE_BUSY, "The engine gave the request up", Blame.FAILED)
    """`finish_reason: abort`: an engine that shuts down; no share of the budget, since it is as good as dead"""
    DEAD = Treatment(Reason.ENGINE_BROKEN, "The engine died", Blame.FAILED)
    """an error, as the answer or in it, by which the engine says so"""
    LOST = Treatment(Reason.ENGINE_BROKEN, "The engine broke off", Blame.FAILED)
    """the connection was closed or reset before the answer's end, or its framing is malformed"""
    CUT = Treatment(Reason.ENGINE_BROKEN, "The engine ended the stream early", Blame.FAILED)
    """complete by its framing, but without the event that closes a stream"""
    SILENT = Treatment(Reason.ENGINE_SILENT, "The engine fell silent", Blame.NONE)
    """its replica was found dead, or gave no answer in time when it was looked at"""

    @property
    def treatment(self) -> Treatment:
        """Return the row."""
        return self.value
