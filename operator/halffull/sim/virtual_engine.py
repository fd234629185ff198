"""One replica on the simulator's clock: the engine model, the run of steps under way, and the pages that routers keep of it.

Called by `simulation`. Decodes advance in lockstep, so the books of a page grow by its number of advancing answers with each
step; `catch_up` brings them to the present in the middle of a run, before a decision reads them.
"""

from dataclasses import dataclass

from halffull.core.books import Replica
from halffull.core.values import Signals
from halffull.sim.engine_model import EngineModel, EngineSequence, Outcome, Phase
from halffull.sim.profiles import Profile

UNBOUNDED = 1 << 30
"""steps: a run ends when something changes"""


@dataclass(slots=True, eq=False)
class Page:
    """What one router knows of this replica."""

    replica: Replica
    advancing: int = 0
    """answers that this router relays and that grow with each step"""


class VirtualEngine:
    """The host of one engine model. `slowness` is the duration of a step over the profile's."""

    def __init__(
        self, index: int, profile: Profile, slowness: float, pages: list[Page], *, block_size: int, prefix_cache: bool
    ) -> None:
        self.index = index
        self.pages = pages
        self.speed_slowness = slowness
        self.slowness = slowness
        self.ends: float | None = None
        """when the run under way ends; None: idle or down"""
        self.long = False
        """the run under way has several steps: `catch_up` may have something to do"""
        self.down = False
        self.tokens = 0
        """tokens generated, recomputed ones not counted again"""
        self.prefilled = 0
        """prompt tokens computed"""
        self.token_seconds = 0.0
        """seconds between successive tokens, summed over requests"""
        self._profile = profile
        self._block_size = block_size
        self._prefix_cache = prefix_cache
        self._began = 0.0
        self._run_slowness = slowness
        self._counted = 0
        self._steps = 0
        self._heard_steps = 0
        self.model = self._new_model()

    def submit(self, sequence: EngineSequence, now: float) -> bool:
        """Queue a sequence; return whether `ends` is another now."""
        if self.ends is None:
            self.model.submit(sequence)
            return self.begin(now)
        before = self.ends
        self._cut(now)
        self.model.submit(sequence)
        return self.ends != before

    def withdraw(self, sequence: EngineSequence, now: float) -> bool:
        """Forget a sequence that has not started; return whether `ends` is another now."""
        before = self.ends
        self._cut(now)
        self.model.cancel(sequence)
        return self.ends != before

    def begin(self, now: float) -> bool:
        """Start what comes next; return whether there is something."""
        seconds = self.model.start(UNBOUNDED)
        if seconds is None:
            self.ends = None
            self.long = False
            return False
        self._began = now
        self._run_slowness = self.slowness
        self._counted = 0
        self.long = self.model.steps > 1
        self.ends = now + seconds * self.slowness
        return True

    def finish(self, now: float) -> Outcome:
        """End the run under way; the books grow by what it decoded and has not been counted."""
        outcome = self.model.finish()
        self.ends = None
        self.tokens += outcome.decoded_tokens + len(outcome.prefilled)
        self.prefilled += outcome.prefill_tokens
        self.token_seconds += (now - self._began) * outcome.decoded_tokens / outcome.steps
        for sequence in outcome.preempted:
            self.halt(sequence)
        self._grow(outcome.steps)
        self._steps += outcome.steps
        self._counted = 0
        return outcome

    def halt(self, sequence: EngineSequence) -> None:
        """An answer stops growing."""
        demand = sequence.owner
        if demand.advancing:
            demand.advancing = False
            demand.page.advancing -= 1

    def catch_up(self, now: float) -> None:
        """Count the steps that ended before `now` in the books."""
        if self.long and self.ends is not None:
            self._grow(self.model.steps_ended((now - self._began) / self._run_slowness))

    def slow_down(self, factor: float, now: float) -> bool:
        """Make steps last `factor` times as long from the next one on; return whether `ends` is another now."""
        self.slowness = self.speed_slowness * factor
        if self.ends is None:
            return False
        before = self.ends
        self._cut(now)
        return self.ends != before

    def die(self, now: float) -> list[EngineSequence]:
        """Lose everything; return what it held."""
        self.catch_up(now)
        held = [*self.model.running, *self.model.waiting]
        for sequence in held:
            decoded = self._counted if sequence.phase is Phase.DECODE else 0
            sequence.generated = self.model.generated(sequence) + decoded
        self.down, self.long, self.ends = True, False, None
        self.model = self._new_model()
        return held

    def heard(self, now: float) -> bool:
        """Whether steps ended since the last call."""
        self.catch_up(now)
        steps = self._steps + self._counted
        changed = steps != self._heard_steps
        self._heard_steps = steps
        return changed

    def signals(self, now: float) -> Signals:
        """What a scrape finds."""
        self.catch_up(now)
        model = self.model
        counted = self._counted * model.decoding
        used = model.kv.used + counted
        elapsed = now - self._began if self._counted else 0.0
        return Signals(
            running=len(model.running),
            waiting=len(model.waiting),
            kv_usage=used / model.kv.capacity,
            kv_tokens=model.kv.capacity,
            prompt_tokens=self.prefilled + model.kv.hits,
            generation_tokens=self.tokens + counted,
            token_seconds=self.token_seconds + elapsed * model.decoding,
            prefix_queries=model.kv.queries,
            prefix_hits=model.kv.hits,
        )

    def _new_model(self) -> EngineModel:
        return EngineModel(self._profile, block_size=self._block_size, prefix_cache=self._prefix_cache)

    def _cut(self, now: float) -> None:
        if self.long:
            self.catch_up(now)
            seconds = self.model.cut((now - self._began) / self._run_slowness)
            self.ends = self._began + seconds * self._run_slowness
            self.long = self.model.steps > 1

    def _grow(self, steps: int) -> None:
        grown = steps - self._counted
        if grown:
            self._counted = steps
            for page in self.pages:
                if page.advancing:
                    page.replica.decode_tokens += grown * page.advancing
