"""A fleet of modelled engines in virtual time, for tests of the rebalancer: steps, batches, token counters."""

import random
from dataclasses import dataclass, field

from halffull.core.balance import Reading
from halffull.core.values import Signals


@dataclass
class Costs:
    """Seconds: of a step, of a prompt token, of a decoding request, of a token of context."""

    step: float
    prompt: float
    decode: float
    context: float


A100 = Costs(9.5e-3, 85e-6, 40e-6, 82e-9)
H100 = Costs(6.0e-3, 29e-6, 25e-6, 49e-9)
SMALL = Costs(16.4e-3, 48e-6, 18e-6, 100e-9)


@dataclass
class Engine:
    """Continuous batching with chunked prefill, 2048 tokens a step."""

    costs: Costs
    speed: float = 1.0
    tells_token_seconds: bool = True
    busy_until: float = 0.0
    waiting: list[list[int]] = field(default_factory=list)
    running: list[list[int]] = field(default_factory=list)
    prompt_tokens: int = 0
    generation_tokens: int = 0
    token_seconds: float = 0.0

    def run(self, until: float) -> None:
        """Take steps until this time."""
        while self.busy_until < until:
            if not self.waiting and not self.running:
                self.busy_until = until
                return
            decoding = len(self.running)
            seconds = self._step() / self.speed
            self.token_seconds += decoding * seconds
            self.busy_until += seconds

    def _step(self) -> float:
        context = sum(request[0] for request in self.running)
        decoding, budget = len(self.running), 2048 - len(self.running)
        prefilled = 0
        for request in self.running:
            request[0] += 1
            request[1] -= 1
        self.generation_tokens += decoding
        self.running = [request for request in self.running if request[1] > 0]
        while self.waiting and budget > 0 and len(self.running) < 256:
            request = self.waiting[0]
            chunk = min(budget, request[2])
            request[2] -= chunk
            budget -= chunk
            prefilled += chunk
            if not request[2]:
                self.running.append(self.waiting.pop(0))
                self.prompt_tokens += request[0]
                self.generation_tokens += 1
        cost = self.costs
        return cost.step + cost.prompt * prefilled + cost.decode * decoding + cost.context * context

    def signals(self) -> Signals:
        """What a scrape would say."""
        kv = sum(request[0] for request in self.running)
        return Signals(
            running=float(len(self.running)),
            waiting=float(len(self.waiting)),
            kv_usage=min(1.0, kv / 400_000),
            kv_tokens=400_000.0,
            prompt_tokens=float(self.prompt_tokens),
            generation_tokens=float(self.generation_tokens),
            token_seconds=self.token_seconds if self.tells_token_seconds else None,
        )


class FakeFleet:
    """Engines by name and a load that is spread in proportion to weight, or to the shortest line."""

    def __init__(
        self, engines: dict[str, Engine], rate: float, *, seed: int = 1, shortest: bool = False, burst: int = 1
    ) -> None:
        """`burst`: requests that come at once, as seldom as `rate` demands."""
        self.engines = engines
        self.rate = rate
        self.shortest = shortest
        self.burst = burst
        self.now = 0.0
        self._rng = random.Random(seed)
        self._next = 0.0

    def run(self, seconds: float, weights: dict[str, float]) -> dict[str, Reading]:
        """Let time pass and return what is read at its end."""
        end = self.now + seconds
        while self._next < end:
            at = self._next
            self._next += self._rng.expovariate(self.rate / self.burst)
            for engine in self.engines.values():
                engine.run(at)
            for _ in range(self.burst):
                prompt, output = self._rng.randrange(50, 2500), self._rng.randrange(20, 500)
                self.engines[self._pick(weights)].waiting.append([prompt, output, prompt])
        for engine in self.engines.values():
            engine.run(end)
        self.now = end
        return {
            name: Reading(engine.signals(), in_flight=len(engine.running) + len(engine.waiting))
            for name, engine in self.engines.items()
        }

    def _pick(self, weights: dict[str, float]) -> str:
        names = list(self.engines)
        if self.shortest:
            lines = [len(engine.running) + len(engine.waiting) for engine in self.engines.values()]
            return min(names, key=lambda name: lines[names.index(name)] / weights[name])
        return self._rng.choices(names, [weights[name] for name in names])[0]
