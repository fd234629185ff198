"""The books: what a router knows exactly by itself of every replica, since every request it sent is in them.

Kept by `dispatch`, read by policies, gates and the host. Letters in brackets are those of the design's formulas.
"""

from collections import deque

from halffull.core.adapters import Adapters
from halffull.core.estimators import Rate, Residual
from halffull.core.health import Health, Verdict
from halffull.core.page import Load, Page
from halffull.core.prefix import PrefixIndex
from halffull.core.survival import Survival
from halffull.core.values import Request, Signals, State

PREFILL_RATE = 10_000.0
"""tokens/s assumed of a replica before anything is learned; only ratios between replicas matter"""
PRIOR_TOKENS = 8_000.0
"""how much evidence of its own (prompt tokens) a replica needs to move half-way from the fleet's rate: with less, the one that
was lucky with its first prompts gets all of an idle fleet's requests, and the prefix caches of the others stay empty"""
FLEET_PRIOR_TOKENS = 1_000.0
"""how much evidence the fleet needs to move half-way from `PREFILL_RATE`"""
LOOK_S = 1.0
"""how often the rates of replicas without new evidence are brought towards the fleet's"""
LEARNING_HALF_LIFE_S = 30.0
KV_HALF_LIFE_S = 7.0
"""freed KV is averaged over about ten seconds (e-folding)"""
ATTENTION = 4e-5
"""work of attending to one token of context, in units of a prompt token's other work: 4 x layers x width / (2 x parameters)
for models of 8 billion parameters, a third less for those of 70"""
DECODE_LEFT_S = 5.0
"""how much longer answers are taken to last before any has ended"""
FINISHED = 512
"""finished requests that are remembered, for what learns from them"""
KV_FLOOR = 0.002
"""fraction of the KV cache per second below which the freeing rate is not believed (2 % in ten seconds)"""


def prefill_work(prompt_tokens: int, cached_tokens: int = 0) -> int:
    """Work of prefilling a prompt in prompt tokens: attention makes long contexts cost more than their length."""
    tokens = prompt_tokens - cached_tokens
    return round(tokens * (1 + ATTENTION * (cached_tokens + tokens / 2)))


class Replica:
    """One engine and its page in the books: this router's requests and, where peers tell of theirs, those too."""

    __slots__ = (
        "_busy_since",
        "_kv_freed",
        "_prefilled",
        "adapters",
        "decode_tokens",
        "decoding",
        "deference_s",
        "distrusted",
        "first_work",
        "foreign",
        "freed_tokens",
        "health",
        "held_back",
        "host",
        "in_flight",
        "kv_tokens",
        "max_batched_tokens",
        "max_sequences",
        "models",
        "name",
        "place",
        "port",
        "prefill_rate",
        "prefill_rate_told",
        "prefill_tokens",
        "prefill_work",
        "prefilled",
        "sent_at",
        "signals",
        "signals_at",
        "starts",
        "state",
        "streams",
        "suspended",
        "waiting_prompt_tokens",
        "weight",
    )

    def __init__(
        self, name: str, host: str, port: int, *, max_sequences: int = 256, max_batched_tokens: int = 2048
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.state = State.READY
        """as discovery sees it; see `shown`"""
        self.suspended = self.distrusted = False
        """taken out, or its signals not believed, by the operator, for at most as long as its document is valid"""
        self.weight = 1.0
        """relative share from slow facts, 0.1 to 1"""
        self.deference_s = 0.0
        """seconds by which it must be better than others to be sent a request: where it is a peer's to fill first (`peers`)"""
        self.in_flight = 0
        """[n] requests sent and not finished"""
        self.prefill_tokens = self.prefill_work = self.first_work = 0
        """[Q] uncached prompt tokens of requests with no first token yet; [W] their work, attention included (`prefill_work`);
        and that of the first of this router's alone, 0 where none waits"""
        self.waiting_prompt_tokens = 0
        """[QK] whole prompts of the same requests"""
        self.decoding = 0
        """requests past their first token"""
        self.decode_tokens = 0
        """[KD] prompt and streamed tokens of the decoding requests"""
        self.foreign = Load()
        """the part of all these that peers told of"""
        self.starts = self.prefilled = self.freed_tokens = 0
        """first tokens that this router saw or presumed so far, the work of their prompts, and KV that its answers freed"""
        self.kv_tokens: float | None = None
        """[K] KV cache capacity; None: unknown"""
        self.prefill_rate = PREFILL_RATE
        """[v] learned work per second, in prompt tokens"""
        self.prefill_rate_told: float | None = None
        """what the user says instead; nothing is learned then"""
        self.max_sequences = max_sequences
        """sequences that the engine runs at once"""
        self.max_batched_tokens = max_batched_tokens
        """tokens that one step of the engine computes at most"""
        self.sent_at = 0.0
        """when it was last sent a request"""
        self.streams = self.held_back = 0
        """requests in flight whose answers come as streams; of these, those of which nothing is read, since their clients do not"""
        self.health = Health()
        self.signals: Signals | None = None
        self.signals_at = 0.0
        self.models: tuple[str, ...] = ()
        """names the engine serves, from its own list; empty: unknown"""
        self.adapters = Adapters()
        self.place = -1
        """index among the candidates; -1: not one of them"""
        self._busy_since = 0.0
        self._prefilled = Rate(LEARNING_HALF_LIFE_S)
        self._kv_freed = Rate(KV_HALF_LIFE_S)

    @property
    def address(self) -> str:
        """`host:port`, brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def shown(self) -> State:
        """The state with what the data path knows: what people see."""
        verdict = self.health.verdict
        if self.state is not State.READY or verdict in {Verdict.WELL, Verdict.TRIAL}:
            return self.state
        return State.SUSPECT if verdict is Verdict.SUSPECT else State.DOWN

    def work_left(self, now: float) -> float:
        """Queued prefill work, less what is taken to be done since the last first token: no more than would have brought one."""
        if not self.prefill_work:
            return 0.0
        return max(self.prefill_work - min(self.prefill_rate * (now - self._busy_since), self._head_work), 0.0)

    def prefill_s(self, work: float, now: float) -> float:
        """Return the seconds until its queue and `work` behind it are done; negative `work` leaves out the queue's end.

        A first token that is overdue tells that the replica is slower than learned, at least by so much; it is taken to need as
        long again as it is late. What stands still would else look the better the longer it does.
        """
        rate, queued = self.prefill_rate, self.prefill_work
        done = rate * (now - self._busy_since) if queued else 0.0
        if done > self.max_batched_tokens and done > (head := self._head_work):
            return (done - head + max(max(queued - head, 0) + work, 0.0) * done / head) / rate
        left = queued - done if queued > done else 0.0  # as in `work_left`: less is done than the head's work
        return (left + work) / rate if work > -left else 0.0

    @property
    def _head_work(self) -> int:
        """Work by whose end a first token must have come: the first request, all of peers (they may be before it), and a step."""
        return (self.first_work + self.foreign.prefill_work or self.prefill_work) + self.max_batched_tokens

    def sent(self, prompt_tokens: int, now: float, *, stream: bool = True, cached_tokens: int = 0) -> None:
        """A request was given to this replica, which is taken to hold its first `cached_tokens` in the prefix cache."""
        self.streams += stream
        if not self.waiting_prompt_tokens:
            self._busy_since = now
        self.sent_at = now
        self.in_flight += 1
        self._wait(prompt_tokens, cached_tokens, 1)

    def started(self, prompt_tokens: int, now: float, cached_tokens: int = 0) -> None:
        """The first token of a request came, or is taken to have come: its prompt is in KV."""
        self._busy_since = now
        self.starts += 1
        self.prefilled += prefill_work(prompt_tokens, cached_tokens)
        self._wait(prompt_tokens, cached_tokens, -1)
        self.decoding += 1
        self.decode_tokens += prompt_tokens

    def _wait(self, prompt_tokens: int, cached_tokens: int, sign: int) -> None:
        """A prompt joins (1) or leaves (-1) those that wait for their first token."""
        self.prefill_tokens += sign * (prompt_tokens - cached_tokens)
        self.prefill_work += sign * prefill_work(prompt_tokens, cached_tokens)
        self.waiting_prompt_tokens += sign * prompt_tokens

    def learn(self, work: int, now: float, fleet_rate: float) -> None:
        """A first token was seen: the time since the last one, or since work began, tells how fast the replica prefills.

        To be called before `started`. Work 0: none was seen, evidence fades.
        """
        self._prefilled.add(work, now - self._busy_since if work else 0.0, now)
        self.prefill_rate = self.prefill_rate_told or self._prefilled.value(fleet_rate, PRIOR_TOKENS)

    def unsent(self, prompt_tokens: int, cached_tokens: int = 0) -> None:
        """A request that had not started left without a first token."""
        self.in_flight -= 1
        self._wait(prompt_tokens, cached_tokens, -1)

    def ended(self, kv_tokens: int, now: float) -> None:
        """A request that had started left; `kv_tokens` are its prompt and streamed tokens."""
        self.in_flight -= 1
        self.decoding -= 1
        self.decode_tokens -= kv_tokens
        self.freed_tokens += kv_tokens
        self._kv_freed.add(kv_tokens, 0.0, now)

    @property
    def busy_since(self) -> float:
        """When its last first token came, or its work began."""
        return self._busy_since

    @property
    def own(self) -> Page:
        """The part of this router."""
        foreign = self.foreign
        load = Load(
            self.in_flight - foreign.in_flight,
            self.prefill_tokens - foreign.prefill_tokens,
            self.prefill_work - foreign.prefill_work,
            self.waiting_prompt_tokens - foreign.waiting_prompt_tokens,
            self.decoding - foreign.decoding,
            self.decode_tokens - foreign.decode_tokens,
        )
        return Page(load, self.starts, self.prefilled, self.freed_tokens)

    def told(self, before: Page, after: Page, now: float) -> None:
        """A peer has `after` here, and no longer `before`."""
        old, new, foreign = before.load, after.load, self.foreign
        if not self.waiting_prompt_tokens or after.starts > before.starts:
            self._busy_since = now
        if after.freed_tokens > before.freed_tokens:
            self._kv_freed.add(after.freed_tokens - before.freed_tokens, 0.0, now)
        in_flight = new.in_flight - old.in_flight
        prefill_tokens = new.prefill_tokens - old.prefill_tokens
        prefill_work = new.prefill_work - old.prefill_work
        waiting_prompt_tokens = new.waiting_prompt_tokens - old.waiting_prompt_tokens
        decoding = new.decoding - old.decoding
        decode_tokens = new.decode_tokens - old.decode_tokens
        if in_flight or waiting_prompt_tokens:
            self.sent_at = now
        self.in_flight += in_flight
        self.prefill_tokens += prefill_tokens
        self.prefill_work += prefill_work
        self.waiting_prompt_tokens += waiting_prompt_tokens
        self.decoding += decoding
        self.decode_tokens += decode_tokens
        self.foreign = Load(
            foreign.in_flight + in_flight,
            foreign.prefill_tokens + prefill_tokens,
            foreign.prefill_work + prefill_work,
            foreign.waiting_prompt_tokens + waiting_prompt_tokens,
            foreign.decoding + decoding,
            foreign.decode_tokens + decode_tokens,
        )

    def kv_free_rate(self, now: float) -> float:
        """Tokens of KV per second freed lately, at least the floor; 0 where the capacity is unknown."""
        if self.kv_tokens is None:
            return 0.0
        self._kv_freed.add(0.0, 0.0, now)
        return max(self._kv_freed.per_second, KV_FLOOR * self.kv_tokens)


class Books:
    """All replicas by name, and what is learned of all together."""

    def __init__(self) -> None:
        self.replicas: dict[str, Replica] = {}
        self.prefixes = PrefixIndex()
        """which replica is taken to hold which beginnings of prompts"""
        self.started: deque[tuple[Request, float]] = deque(maxlen=FINISHED)
        """the last requests whose first token was seen, and the seconds it took from their arrival"""
        self.first_tokens = 0
        """first tokens seen since the start"""
        self._lasted = Residual(DECODE_LEFT_S)
        self.outputs = Survival()
        """lengths of answers"""
        self.finished: deque[tuple[Request, int]] = deque(maxlen=FINISHED)
        """the last requests that were answered in full, and the tokens of their answers"""
        self.completed = 0
        """requests answered in full since the start"""
        self._prefilled = Rate(LEARNING_HALF_LIFE_S)
        self._looked_at = 0.0

    @property
    def decode_left_s(self) -> float:
        """How much longer the answers under way last on average, seconds."""
        return self._lasted.value

    def ended(self, replica: Replica, kv_tokens: int, started_at: float | None, now: float) -> None:
        """An answer left; see `Replica.ended`."""
        replica.ended(kv_tokens, now)
        if started_at is not None:
            self._lasted.add(now - started_at)

    @property
    def kv_pressure(self) -> float:
        """Part of the fleet's KV cache that is in use or promised, 0 to 1 and beyond; 0 where no capacity is known."""
        known = [replica for replica in self.replicas.values() if replica.kv_tokens]
        held = sum(replica.decode_tokens + replica.waiting_prompt_tokens for replica in known)
        return held / sum(replica.kv_tokens or 0.0 for replica in known) if known else 0.0

    @property
    def fleet_rate(self) -> float:
        """Learned prefill rate of all replicas together (tokens/s): what one without evidence is taken for."""
        return self._prefilled.value(PREFILL_RATE, FLEET_PRIOR_TOKENS)

    def add(self, replica: Replica) -> None:
        """Open a page; the replica is taken to be as fast as the fleet until it shows otherwise."""
        replica.prefill_rate = replica.prefill_rate_told or self.fleet_rate
        self.replicas[replica.name] = replica

    def remove(self, replica: Replica) -> None:
        """Close a page."""
        del self.replicas[replica.name]
        self.prefixes.forget(replica.name)

    def learn(self, replica: Replica, work: int, now: float) -> None:
        """Learn from a first token that was seen; see `Replica.learn`."""
        self._prefilled.add(work, now - replica.busy_since, now)
        replica.learn(work, now, self.fleet_rate)

    def look(self, now: float) -> None:
        """Let evidence fade: a replica that was slow, or seemed so, gets another chance. To be called often."""
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            for replica in self.replicas.values():
                replica.learn(0, now, self.fleet_rate)

    def first_token(self, request: Request, now: float) -> None:
        """The first token of a streamed answer was seen."""
        self.started.append((request, now - request.arrived))
        self.first_tokens += 1

    def complete(self, request: Request, tokens: int) -> None:
        """An answer came to its end by itself."""
        self.outputs.add(request, tokens)
        self.finished.append((request, tokens))
        self.completed += 1
