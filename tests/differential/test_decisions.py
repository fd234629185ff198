"""One code, proved: the simulator and the real router process code decide alike, request by request, on one trace.

Compared are which replica each request is given to and when, in order, with what the books held of that replica, and when the
first tokens come. The engine model is the same on both sides; each side drives it in its own way.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from differential.virtual_router import VirtualRouter, in_sessions
from halffull.core.dispatch import Dispatcher
from halffull.core.exchange import Exchange
from halffull.core.limits import Limits
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES
from halffull.router.observability.telemetry import Decision
from halffull.router.scheduler import build
from halffull.sim.profiles import PROFILES
from halffull.sim.saturation import saturated_throughput
from halffull.sim.setting import Setting
from halffull.sim.simulation import Simulation
from halffull.sim.trace import BLOCK_TOKENS, Call
from simulated_runs import contender, setting

REQUESTS = 240
REPLICAS = 4
PROFILE = replace(PROFILES["a100"], kv_tokens=7_000, max_batched_tokens=768, max_sequences=8)
"""small, so that memory runs out, answers are pre-empted and the gates close"""
SCHEDULING = {
    "queue": {"maxRequests": 1_000_000, "timeoutSeconds": 3600},
    "slo": {"ttftSeconds": 2},
    "parameters": {"limit": {"maxInFlight": 9}},
}
UNBOUNDED = {"queue_requests": 1 << 60, "queue_bytes": 1 << 60, "queue_timeout_s": 1e12, "signals_s": 5.0}
SWAP_S = 0.313


def trace() -> list[Call]:
    """Conversations over a few system prompts: prompts share beginnings of whole blocks."""
    rng = Random(3)
    held: dict[int, tuple[int, ...]] = {talk: (talk % 3,) for talk in range(40)}
    calls, names = [], 100
    for _ in range(REQUESTS):
        talk = rng.randrange(len(held))
        blocks = held[talk]
        rest = rng.randrange(
            BLOCK_TOKENS - 1
        )  # a further byte would be a whole block with the separator behind the text
        calls.append(Call(0.0, len(blocks) * BLOCK_TOKENS + rest, rng.randrange(1, 80), blocks))
        if len(blocks) < 5 and rng.random() < 0.5:
            held[talk], names = (*blocks, names), names + 1
    return calls


class Recorded(Simulation):
    """A simulation that notes what it decides as the router does."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        in_sessions(self.demands)
        self.decisions: list[Decision] = []

    def swap_at(self, moment: float, policy: str) -> None:
        made = build(contender(policy, **SCHEDULING).scheduling)
        only = self.dispatchers[0]

        def swap(_: None) -> None:
            self._catch_up()
            only.configure(made.policy, made.ordering, made.gate, Limits(ttft_goal_s=2.0, **UNBOUNDED), self.now)
            self._release(only)

        self._at(moment, swap, None)

    def _send(self, dispatcher: Dispatcher, exchange: Exchange) -> Sequence[Exchange]:
        request, there = exchange.request, exchange.replica
        self.decisions.append(
            Decision(self.now, request.id, there.name, exchange.attempts, self.now - request.arrived,
                     request.prompt_tokens, there.in_flight, there.prefill_tokens)
        )  # fmt: skip
        return super()._send(dispatcher, exchange)


def plan(load: float = 2.0, **clients) -> Setting:
    calls = trace()
    rate = load * saturated_throughput(calls, PROFILE) * REPLICAS
    return setting(
        calls, rate, PROFILE, clients={"callers": 3, **clients},
        engines={"count": REPLICAS, "prefixCache": True, "speeds": [1.0, 0.7]},
    )  # fmt: skip


async def alike(
    setting: Setting, name: str, ordering: str | None = None, gate: str | None = None, swaps: Sequence[str] = ()
) -> Recorded:
    """Run both, and compare; `swaps` are policies that take over, one after the other."""
    scheduler = contender(name, ordering, gate, **SCHEDULING)
    simulated, routed = Recorded(setting, scheduler, 1), VirtualRouter(setting, scheduler, 1)
    for number, other in enumerate(swaps, start=1):
        simulated.swap_at(number * SWAP_S, other)
        routed.at(number * SWAP_S, partial(routed.swap, contender(other, **SCHEDULING).scheduling))
    simulated.run()
    await routed.play()
    theirs, ours = routed.decisions, simulated.decisions
    assert len(ours) >= REQUESTS
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        assert other._replace(at=0, queued_s=0) == one._replace(at=0, queued_s=0), f"decision {number}, {one.at:.6f} s"
        assert (other.at, other.queued_s) == pytest.approx((one.at, one.queued_s), abs=1e-6)
    assert len(ours) == len(theirs)
    seen = {str(demand.number): demand.first for demand in simulated.demands if demand.stream}
    assert routed.first_tokens == pytest.approx(seen, abs=1e-6)
    for engine in routed.engines:
        books = engine.replica
        assert (books.in_flight, books.prefill_tokens, books.decode_tokens) == (0, 0, 0)
    return simulated


@pytest.mark.parametrize("policy", POLICIES)
async def test_every_policy(policy: str) -> None:
    simulated = await alike(plan(), policy)
    assert len({decision.replica for decision in simulated.decisions}) == REPLICAS
    assert any(decision.queued_s > 0 for decision in simulated.decisions), "requests wait in the router"


@pytest.mark.parametrize("ordering", ORDERINGS)
async def test_every_ordering_under_late_binding(ordering: str) -> None:
    await alike(plan(urgent=0.3), "halffull", ordering, "kv")


async def test_policies_that_are_swapped_under_load() -> None:
    """Each takes the fleet over as it is, queue and all."""
    simulated = await alike(plan(), "round-robin", swaps=[*POLICIES, *reversed(POLICIES)])
    assert simulated.now > SWAP_S * len(POLICIES)


async def test_engines_queue_and_preempt() -> None:
    simulated = await alike(plan(), "least-tokens", "fcfs", "none")
    assert any(demand.preemptions for demand in simulated.demands)


async def test_requests_leave_the_queues_of_engines() -> None:
    simulated = await alike(plan(), "llumnix", "fcfs", "none")
    assert any(decision.attempt > 1 for decision in simulated.decisions)


@pytest.mark.parametrize("policy", ["sal", "halffull"])
async def test_answers_that_are_not_streamed(policy: str) -> None:
    await alike(plan(streamed=0.4), policy)
