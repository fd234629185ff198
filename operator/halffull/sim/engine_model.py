"""Model of one replica's engine: continuous batching as vLLM V1 does it, without a clock, a thread or any I/O.

`halffull engine` drives it in real time and the simulator on virtual time; both do
`submit`, `start` (how long does the coming step last?), wait that long, `finish` (what happened?), again.

The rules of one step. Running sequences come first, in the order of their admission: one token for each that decodes,
the next chunk of its prompt for the one that prefills. Then waiting sequences are admitted, first come, first served, while
the step's token budget and the sequence limit allow, if the whole prompt fits in the free KV memory and nothing was
pre-empted in this step. If decodes find no free KV, the sequence admitted last loses all its KV and goes to the head of the
waiting queue, to be computed again. What arrives during a step waits for the next.

Two consequences make a step cost O(what changes), not O(sequences). At most one sequence is in mid-prefill, the one
admitted last (it used up its step's budget, so nothing was admitted behind it). And all others decode in lockstep, so that
their tokens, their KV and the next end follow from counters. A run of steps in which nothing changes is one `start`/`finish`.
"""

import heapq
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import sqrt
from typing import Any

from halffull.sim.kv_cache import KvCache
from halffull.sim.profiles import Profile


class Phase(Enum):
    """Where a sequence is."""

    NEW = "new"
    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    DONE = "done"


@dataclass(slots=True, eq=False)
class EngineSequence:
    """One sequence of tokens to compute. The host fills the first part; the model alone changes the second."""

    prompt_tokens: int
    output_tokens: int
    """tokens it will generate, at least 1; policies must not know"""
    block_hashes: Sequence[Hashable] = ()
    """one hash per full block of the prompt, for the prefix cache; chained with the blocks before, so all distinct"""
    owner: Any = None
    """the host's own object"""
    session: str = ""
    """what the host calls its request where it tells of blocks"""

    phase: Phase = Phase.NEW
    cached_tokens: int = 0
    """prompt tokens found in the prefix cache at its last admission"""
    preemptions: int = 0
    generated: int = 0
    """tokens generated when it was last admitted or finished; ask the model's `generated` while it runs"""
    computed: int = 0
    target: int = 0
    own_kv: int = 0
    shared_blocks: int = 0
    since: int = 0
    ends: int = 0


@dataclass(slots=True)
class Outcome:
    """What one run of steps did."""

    steps: int
    prefill_tokens: int
    decoded_tokens: int
    admitted: list[EngineSequence] = field(default_factory=list)
    prefilled: list[EngineSequence] = field(default_factory=list)
    """got the token that follows their prompt (the first, unless they had been pre-empted)"""
    finished: list[EngineSequence] = field(default_factory=list)
    preempted: list[EngineSequence] = field(default_factory=list)
    published: list[tuple[EngineSequence, int, int]] = field(default_factory=list)
    """prompt blocks that can be shared from now on: those of a sequence from one index up to another"""


@dataclass(slots=True)
class _Run:
    """What the duration of the run under way depends on, as it was at its start."""

    decoding: int
    decode_kv: int
    prefill: float


class EngineModel:
    """Continuous batching with chunked prefill; see the module's text for the rules.

    `block_size` is the unit of the prefix cache in tokens; memory itself is counted in single tokens.
    Raises ValueError where the step budget is below the sequence limit, which vLLM refuses too.
    """

    def __init__(self, profile: Profile, *, block_size: int = 16, prefix_cache: bool = False) -> None:
        if profile.max_batched_tokens < profile.max_sequences:
            raise ValueError(
                f"the step budget of {profile.max_batched_tokens} tokens is below the limit of {profile.max_sequences} sequences"
            )
        self.profile = profile
        self.kv = KvCache(profile.kv_tokens, block_size, prefix_cache=prefix_cache)
        self.waiting: deque[EngineSequence] = deque()
        self.running: dict[EngineSequence, None] = {}
        """in order of admission"""
        self._prefilling: EngineSequence | None = None
        self._completing: list[EngineSequence] = []
        self._decoding = 0
        self._decode_kv = 0
        self._tick = 0
        self._growing = 0
        """tokens of room that each decode has taken for the step under way"""
        self._ends: list[tuple[int, int, EngineSequence]] = []
        self._serial = 0
        self._outcome: Outcome | None = None
        self._run = _Run(0, 0, 0.0)

    @property
    def decoding(self) -> int:
        """Sequences that have their first token and run."""
        return self._decoding

    @property
    def busy(self) -> bool:
        """Whether a step is under way (between `start` and `finish`)."""
        return self._outcome is not None

    @property
    def steps(self) -> int:
        """Steps of the run under way; 0 if none is."""
        return 0 if self._outcome is None else self._outcome.steps

    def steps_ended(self, elapsed: float) -> int:
        """Whole steps of the run under way that are over `elapsed` seconds after its start; the last one never is.

        Each step of a run of several lasts longer than the one before by the same amount, so this is the root of a
        quadratic. Raises RuntimeError if no run is under way.
        """
        steps = self._under_way().steps
        if steps == 1:
            return 0
        run, profile = self._run, self.profile
        growth = profile.per_kv_token * run.decoding / 2
        first = profile.base + profile.per_decode * run.decoding + profile.per_kv_token * run.decode_kv + growth
        ended = int(2 * elapsed / (first + sqrt(first * first + 4 * growth * elapsed)))
        return max(0, min(ended, steps - 1))

    def submit(self, sequence: EngineSequence) -> None:
        """Queue a sequence; it is considered at the next `start`. ValueError if it could never fit in KV memory."""
        if sequence.output_tokens < 1 or sequence.prompt_tokens < 1:
            raise ValueError("a sequence has at least one prompt token and one output token")
        if sequence.prompt_tokens + sequence.output_tokens - 1 > self.kv.capacity:
            raise ValueError(f"{sequence.prompt_tokens} + {sequence.output_tokens} tokens exceed the KV cache")
        sequence.phase = Phase.WAITING
        self.waiting.append(sequence)

    def start(self, most_steps: int = 1) -> float | None:
        """Begin the next step, or a run of up to `most_steps` steps in which nothing changes; return seconds, or None if idle."""
        self._outcome = outcome = Outcome(1, 0, 0)
        self._make_room(outcome)
        self.kv.grow(self._decoding)  # decodes take their room before anything is admitted
        self._growing = 1
        budget = self.profile.max_batched_tokens - self._decoding
        pairs = 0.0
        if self._prefilling is not None:
            chunk, pairs = self._compute_prompt(self._prefilling, budget)
            budget -= chunk
        while self.waiting and budget > 0 and not outcome.preempted and len(self.running) < self.profile.max_sequences:
            sequence = self.waiting[0]
            if not self._admit(sequence):
                break
            self.waiting.popleft()
            outcome.admitted.append(sequence)
            chunk, more_pairs = self._compute_prompt(sequence, budget)
            budget -= chunk
            pairs += more_pairs
        if not self.running:
            self._outcome = None
            self._growing = 0
            return None
        outcome.prefill_tokens = self.profile.max_batched_tokens - self._decoding - budget
        if most_steps > 1 and not outcome.prefill_tokens and not outcome.preempted:
            outcome.steps = self._steps_unchanged(most_steps)
        profile = self.profile
        prefill = profile.per_prefill_token * outcome.prefill_tokens + profile.per_attention * pairs
        self._run = _Run(self._decoding, self._decode_kv, prefill)
        return self._seconds(outcome.steps)

    def cut(self, elapsed: float) -> float:
        """Shorten the run under way so that it ends with the step that is running `elapsed` seconds after its start.

        For a host that started several steps and must now let a sequence in or out (call it before `submit` and
        `cancel`); returns the run's new duration. Raises RuntimeError if no run is under way.
        """
        outcome = self._under_way()
        if outcome.steps > 1:
            low, high = 1, outcome.steps
            while low < high:
                middle = (low + high) // 2
                if self._seconds(middle) >= elapsed:
                    high = middle
                else:
                    low = middle + 1
            outcome.steps = low
        return self._seconds(outcome.steps)

    def finish(self) -> Outcome:
        """End the run of steps begun by `start`; return what it did. Raises RuntimeError if none is under way."""
        outcome = self._under_way()
        self._outcome = None
        self._growing = 0
        self._tick += outcome.steps
        grown = outcome.steps * self._decoding
        outcome.decoded_tokens = grown
        if grown:
            self.kv.grow(grown - self._decoding)
            self._decode_kv += grown
            self._end_decodes(outcome)
        if self._completing:
            self._end_prefills(outcome)
        return outcome

    def cancel(self, sequence: EngineSequence) -> None:
        """Forget a sequence at once, free its memory. A step under way takes as long as it would have. No-op once done."""
        if sequence.phase is Phase.WAITING:
            self.waiting.remove(sequence)
        elif sequence.phase in {Phase.PREFILL, Phase.DECODE}:
            self._leave(sequence)
        sequence.phase = Phase.DONE

    def generated(self, sequence: EngineSequence) -> int:
        """Tokens that a sequence has generated so far."""
        if sequence.phase is Phase.DECODE:
            return sequence.generated + self._tick - sequence.since
        return sequence.generated

    def _under_way(self) -> Outcome:
        if self._outcome is None:
            raise RuntimeError("no step is under way")
        return self._outcome

    def _make_room(self, outcome: Outcome) -> None:
        """Pre-empt the sequences admitted last until every decode that is left can grow by one token."""
        while self._decoding > self.kv.free:
            sequence = next(reversed(self.running))
            self._leave(sequence)
            sequence.phase = Phase.WAITING
            sequence.preemptions += 1
            self.waiting.appendleft(sequence)
            outcome.preempted.append(sequence)

    def _admit(self, sequence: EngineSequence) -> bool:
        target = sequence.prompt_tokens + sequence.generated
        reserved = self.kv.reserve(target, sequence.block_hashes)
        if reserved is None:
            return False
        sequence.cached_tokens, sequence.own_kv = reserved
        sequence.shared_blocks = sequence.cached_tokens // self.kv.block_size
        sequence.computed = sequence.cached_tokens
        sequence.target = target
        sequence.phase = Phase.PREFILL
        self.running[sequence] = None
        return True

    def _compute_prompt(self, sequence: EngineSequence, budget: int) -> tuple[int, float]:
        """Give a prefilling sequence its next chunk; return its tokens and its (query, key) pairs."""
        chunk = min(sequence.target - sequence.computed, budget)
        pairs = chunk * (sequence.computed + chunk / 2)
        sequence.computed += chunk
        if sequence.computed < sequence.target:
            self._prefilling = sequence
        else:
            self._prefilling = None
            self._completing.append(sequence)
            self._publish(sequence)
        return chunk, pairs

    def _publish(self, sequence: EngineSequence) -> None:
        if sequence.block_hashes:
            shared = self.kv.publish(sequence.block_hashes, sequence.shared_blocks)
            if self._outcome is not None and shared > sequence.shared_blocks:
                self._outcome.published.append((sequence, sequence.shared_blocks, shared))
            sequence.own_kv -= (shared - sequence.shared_blocks) * self.kv.block_size
            sequence.shared_blocks = shared

    def _steps_unchanged(self, most_steps: int) -> int:
        """Steps until a decode ends or memory runs out; waiting sequences stay blocked until then, as memory only shrinks."""
        while self._ends[0][2].ends != self._ends[0][0] or self._ends[0][2].phase is not Phase.DECODE:
            heapq.heappop(self._ends)
        return min(most_steps, self._ends[0][0] - self._tick, 1 + self.kv.free // self._decoding)

    def _seconds(self, steps: int) -> float:
        """Seconds of the first `steps` steps of the run under way; each decode reads one more KV token in every step."""
        profile, run = self.profile, self._run
        read = steps * run.decode_kv + run.decoding * (steps * (steps + 1) // 2)
        return run.prefill + steps * (profile.base + profile.per_decode * run.decoding) + profile.per_kv_token * read

    def _end_decodes(self, outcome: Outcome) -> None:
        ends = self._ends
        while ends and ends[0][0] <= self._tick:
            tick, _, sequence = heapq.heappop(ends)
            if sequence.phase is Phase.DECODE and sequence.ends == tick:
                self._done(sequence, outcome)

    def _end_prefills(self, outcome: Outcome) -> None:
        for sequence in self._completing:
            outcome.prefilled.append(sequence)
            sequence.generated += 1
            sequence.phase = Phase.DECODE
            sequence.since = self._tick
            sequence.ends = self._tick + sequence.output_tokens - sequence.generated
            self._decoding += 1
            self._decode_kv += sequence.target
            if sequence.ends == self._tick:
                self._done(sequence, outcome)
            else:
                self._serial += 1
                heapq.heappush(self._ends, (sequence.ends, self._serial, sequence))
        self._completing.clear()

    def _done(self, sequence: EngineSequence, outcome: Outcome) -> None:
        self._leave(sequence)
        sequence.phase = Phase.DONE
        outcome.finished.append(sequence)

    def _leave(self, sequence: EngineSequence) -> None:
        """Take a sequence out of the batch, free its memory and note what it has generated."""
        del self.running[sequence]
        own = sequence.own_kv
        if sequence.phase is Phase.DECODE:
            grown = self._tick - sequence.since
            sequence.generated += grown
            own += grown + self._growing
            self._decoding -= 1
            self._decode_kv -= sequence.target + grown
        elif sequence is self._prefilling:
            self._prefilling = None
        else:
            self._completing.remove(sequence)
        self.kv.release(own, sequence.block_hashes[: sequence.shared_blocks])
