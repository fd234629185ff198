"""Runs the engine model in real time: the only place where the simulated engine meets a clock.

Called by the server with sequences; it calls their jobs back as tokens come. Deadlines of steps are absolute: a step begins
where the one before it ended, not when the event loop woke up, so lateness never adds up; an engine that fell behind
runs several steps in one turn of the loop.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from halffull.sim.engine_model import EngineModel, EngineSequence, Outcome
from halffull.sim.kv_events import Publisher
from halffull.sim.metrics import EngineMetrics, Gauges

STEPS_PER_TURN = 16
"""steps that a late engine catches up before it lets the event loop serve its connections"""


class Job(Protocol):
    """What one request wants to hear of its sequences."""

    def progressed(self, index: int, sequence: EngineSequence, generated: int, reason: str | None) -> None:
        """Sequence `index` has `generated` tokens now, and has ended if there is a reason."""


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of a job, and when what happened to it (seconds of the loop's clock)."""

    job: Job
    index: int
    reason: str
    """why it will end: length or stop"""
    max_tokens: int
    arrived: float = 0.0
    admitted: float | None = None
    first: float | None = None
    last: float = 0.0
    seen: int = 0


class Pace:
    """The engine model on the event loop's clock; one second of the model takes `scale` seconds."""

    def __init__(
        self, model: EngineModel, scale: float, metrics: EngineMetrics, publisher: Publisher | None = None
    ) -> None:
        """`publisher` tells others what the prefix cache holds; None: nobody."""
        self._model = model
        self._scale = scale
        self._metrics = metrics
        self._publisher = publisher
        if publisher is not None:
            publisher.watch(model.kv)
        self._loop = asyncio.get_running_loop()
        self._live: dict[EngineSequence, Slot] = {}
        self._began = 0.0
        self._deadline = 0.0
        self._timer: asyncio.Handle | None = None
        self._frozen = False
        self.idle = asyncio.Event()
        """set while nothing waits or runs"""
        self.idle.set()

    @property
    def in_flight(self) -> int:
        """Sequences that wait or run."""
        return len(self._live)

    def submit(self, sequences: Iterable[EngineSequence]) -> None:
        """Queue the sequences of one job; their owners are Slots."""
        now = self._loop.time()
        for sequence in sequences:
            slot: Slot = sequence.owner
            slot.arrived = slot.last = now
            self._live[sequence] = slot
            self._model.submit(sequence)
        self.idle.clear()
        if not self._model.busy and not self._frozen:
            self._begin(now)
            self._arm()

    def cancel(self, sequences: Iterable[EngineSequence]) -> None:
        """Forget sequences whose client has gone; those that have ended are left alone."""
        gone = [sequence for sequence in sequences if self._live.pop(sequence, None) is not None]
        for sequence in gone:
            self._model.cancel(sequence)
            self._metrics.finished["abort"] += 1
        if gone:
            self._record(self._loop.time())

    def abort(self, sequences: Iterable[EngineSequence] | None = None) -> None:
        """End these sequences (None: all) now, with reason abort: what vLLM does when it is told to stop."""
        for sequence in list(self._live if sequences is None else sequences):
            slot: Slot = sequence.owner
            generated = self._model.generated(sequence)
            self.cancel([sequence])
            slot.job.progressed(slot.index, sequence, generated, "abort")

    def freeze(self) -> None:
        """Stop the model for good and say nothing: what is in flight stays so, what comes is never answered."""
        self._frozen = True
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, at: float) -> None:
        self._began = at
        duration = self._model.start()
        self._deadline = at if duration is None else at + duration * self._scale

    def _arm(self) -> None:
        self._timer = self._loop.call_at(self._deadline, self._end) if self._model.busy else None

    def _end(self) -> None:
        now = self._loop.time()
        for _ in range(STEPS_PER_TURN):
            self._deliver(self._model.finish(), self._deadline)
            self._begin(self._deadline)
            if not self._model.busy or self._deadline > now:
                break
        self._arm()

    def _deliver(self, outcome: Outcome, now: float) -> None:
        """Count what a step did and tell the jobs; sequences cancelled while it ran are no longer live."""
        metrics, model = self._metrics, self._model
        metrics.step(outcome, now - self._began)
        if self._publisher is not None:
            self._publisher.publish(outcome, model.kv)
        for sequence in outcome.admitted:
            if sequence.owner.admitted is None:
                sequence.owner.admitted = max(self._began, sequence.owner.arrived)
        for sequence in outcome.prefilled:
            self._started(sequence, now)
        for sequence in outcome.finished:
            slot = self._live.pop(sequence)
            metrics.ended(sequence, slot, now)
            slot.job.progressed(slot.index, sequence, sequence.generated, slot.reason)
        self._record(now)
        for sequence in model.running:
            slot = sequence.owner
            generated = model.generated(sequence)
            if generated != slot.seen:
                slot.seen = generated
                slot.last = now
                slot.job.progressed(slot.index, sequence, generated, None)

    def _started(self, sequence: EngineSequence, now: float) -> None:
        slot: Slot = sequence.owner
        if slot.first is None:
            slot.first = now
            self._metrics.started(sequence, now - slot.arrived)
        else:
            self._metrics.token_gap.observe(now - slot.last)

    def _record(self, now: float) -> None:
        """Note the state after something ended or a step did."""
        if not self._live:
            self.idle.set()
        model = self._model
        usage = model.kv.used / model.kv.capacity
        self._metrics.record(now, Gauges(len(model.running), len(model.waiting), usage))
