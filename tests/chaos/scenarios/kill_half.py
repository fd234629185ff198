"""F1: two of four replicas die at once (kill -9) in the middle of their streams."""

from chaos.record import Record
from chaos.scenarios import kill_one
from chaos.stage import Stage


async def play(stage: Stage, record: Record) -> None:
    """Half of them at once."""
    await kill_one.play(stage, record, dead=2)
