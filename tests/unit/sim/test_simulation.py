"""What must hold in every simulated run: nothing is lost, nothing goes where it must not, nothing idles beside a queue."""

from dataclasses import replace
from random import Random

import pytest

from halffull.core.gate import GATES
from halffull.core.values import State
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES
from halffull.sim.profiles import PROFILES
from halffull.sim.simulation import Simulation
from halffull.sim.trace import Call
from simulated_runs import SERVER, contender, measured, play, setting

TIGHT = replace(PROFILES["a100"], kv_tokens=12_000)


def mixed_calls(count: int, seed: int = 3) -> list[Call]:
    rng = Random(seed)
    return [Call(0.0, rng.choice((30, 300, 900, 3000)), rng.choice((1, 20, 150))) for _ in range(count)]


def assert_conserved(simulation: Simulation) -> None:
    """Every request ended once, every token was made once, and no book or memory holds anything."""
    assert all((demand.ended is None) == bool(demand.failure) for demand in simulation.demands)
    assert all(
        demand.first is not None and demand.arrived < demand.first <= demand.ended
        for demand in simulation.demands
        if not demand.failure
    )
    for engine in simulation.engines:
        assert engine.model.kv.used == 0
        assert not engine.model.running
        assert not engine.model.waiting
        for page in engine.pages:
            replica = page.replica
            held = (replica.in_flight, replica.prefill_tokens, replica.prefill_work, replica.waiting_prompt_tokens)
            assert held == (0, 0, 0, 0)
            assert (replica.decoding, replica.decode_tokens, replica.streams, page.advancing) == (0, 0, 0, 0)
    for dispatcher in simulation.dispatchers:
        assert not len(dispatcher.queue)


@pytest.mark.parametrize("policy", POLICIES)
def test_requests_tokens_and_memory_are_conserved(policy):
    calls = mixed_calls(800)
    run = setting(calls, 20.0, TIGHT, engines={"count": 4}, clients={"streamed": 0.7, "urgent": 0.2, "tokenNoise": 0.2})
    simulation = play(run, contender(policy))
    assert_conserved(simulation)
    assert sum(engine.tokens for engine in simulation.engines) == sum(call.output_tokens for call in calls)
    assert sum(demand.preemptions for demand in simulation.demands) >= 0


def test_memory_that_is_too_small_pre_empts_and_loses_nothing():
    simulation = play(setting(mixed_calls(800), 30.0, TIGHT, engines={"count": 4}), contender("round-robin"))
    assert sum(demand.preemptions for demand in simulation.demands) > 0
    assert_conserved(simulation)


@pytest.mark.parametrize("share", [None, 0.005, 0.3])
def test_several_routers_end_with_empty_books(share):
    routers = {"count": 3} | ({} if share is None else {"shareSeconds": share})
    clients = {"streamed": 0.6}
    simulation = play(
        setting(mixed_calls(600), 20.0, TIGHT, engines={"count": 4}, routers=routers, clients=clients), contender("sal")
    )
    if share is not None:  # the last messages are on their way when the last request ends
        for router in range(3):
            simulation._sharing._tell(router)
    assert_conserved(simulation)


def test_a_replica_that_dies_gets_nothing_and_what_had_not_started_goes_elsewhere():
    outage = {"replica": 1, "atSeconds": 10, "forSeconds": 15, "noticedSeconds": 0.5}
    run = setting(mixed_calls(900), 20.0, engines={"count": 4, "outages": [outage]})
    simulation = play(run, contender("least-requests"))
    lost = [demand for demand in simulation.demands if demand.failure]
    assert lost
    assert {demand.failure for demand in lost} == {"engine_broken"}
    assert all(demand.first is not None and demand.first <= 10 for demand in lost)
    away = [demand for demand in simulation.demands if demand.replica == 1 and not demand.failure]
    assert not any(11 < demand.first < 25 for demand in away)
    assert any(demand.first > 26 for demand in away)
    for engine in simulation.engines:
        assert all(page.replica.in_flight == 0 and page.replica.decode_tokens == 0 for page in engine.pages)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_never_picks_a_replica_that_is_not_ready(policy):
    run = setting(mixed_calls(300), 15.0, engines={"count": 4})
    simulation = Simulation(run, contender(policy), 1)
    for engine in simulation.engines[:2]:
        engine.pages[0].replica.state = State.DRAINING
    simulation.run()
    assert {demand.replica for demand in simulation.demands} <= {2, 3}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("gate", ["limit", "none"])
def test_no_request_waits_in_the_router_while_a_gate_is_open(policy, gate):
    """Work conservation: with an early gate the queue holds something only while every replica is at its limit."""
    seen = []

    def watch(simulation: Simulation) -> None:
        queued = len(simulation.dispatchers[0].queue)
        seen.append(queued)
        assert not queued or all(page.replica.in_flight >= 3 for engine in simulation.engines for page in engine.pages)

    limit = {"parameters": {"limit": {"maxInFlight": 3}}}
    run = setting(mixed_calls(400), 30.0, engines={"count": 3})
    Simulation(run, contender(policy, gate=gate, **limit), 1, watch=watch).run()
    assert (max(seen) > 0) == (gate == "limit")


@pytest.mark.parametrize("ordering", [name for name in ORDERINGS if name in {"fcfs", "adaptive-lifo", "larry"}])
@pytest.mark.parametrize("gate", [name for name in GATES if name != "none"])
def test_nobody_starves_below_saturation(ordering, gate):
    """Rare long prompts among many short ones, load below 1: the longest wait is bounded."""
    rng = Random(5)
    calls = [Call(0.0, 6000 if rng.random() < 0.02 else 200, 40) for _ in range(3000)]
    run = setting(calls, 60.0, replace(PROFILES["a100"], kv_tokens=20_000), engines={"count": 4})
    simulation = play(run, contender("sal", ordering=ordering, gate=gate))
    assert max(demand.first - demand.arrived for demand in measured(simulation)) < 10


def test_throughput_of_one_replica_is_that_of_a_fluid():
    """Prompts and answers cost what the step formula says they cost when the batch is full."""
    profile = replace(PROFILES["a100"], per_attention=0.0, max_sequences=64)
    calls = [Call(0.0, 500, 100)] * 4000
    run = setting(calls, 1000.0, profile, engines={"count": 1})
    simulation = play(run, contender("round-robin", gate="none"))
    step_s = profile.base + 64 * profile.per_decode + 64 * 550 * profile.per_kv_token
    seconds_each = 500 * profile.per_prefill_token + 100 / 64 * step_s
    assert len(calls) / simulation.now == pytest.approx(1 / seconds_each, rel=0.05)


def test_the_same_seed_gives_the_same_run():
    run = setting(mixed_calls(300), 20.0, engines={"count": 3})
    runs = [play(run, contender("sal")) for _ in range(2)]
    assert [demand.first for demand in runs[0].demands] == [demand.first for demand in runs[1].demands]
    other = play(run, contender("sal"), seed=2)
    assert [demand.first for demand in runs[0].demands] != [demand.first for demand in other.demands]


def test_a_slow_replica_takes_its_time_and_gets_less():
    run = setting(mixed_calls(1000), 4.0, engines={"count": 2, "speeds": [1.0, 0.25]})
    simulation = play(run, contender("sal"))
    shares = [sum(demand.replica == index for demand in simulation.demands) for index in range(2)]
    assert shares[0] > 2 * shares[1]


def test_a_slowdown_begins_and_ends():
    slowdown = {"replica": 0, "factor": 10.0, "fromSeconds": 100, "forSeconds": 100}
    calls = [Call(0.0, 1000, 1)] * 600
    run = setting(calls, 2.0, SERVER, engines={"count": 1, "slowdowns": [slowdown]})
    simulation = play(run, contender("sal", gate="none"))
    waits = [(demand.arrived, demand.first - demand.arrived) for demand in simulation.demands]
    assert simulation.now > 600 + 90
    assert min(wait for at, wait in waits if 110 < at < 190) > 5


def test_dispatch_takes_time():
    run = setting([Call(0.0, 100, 2)] * 50, 1.0, SERVER, engines={"count": 1}, routers={"dispatchSeconds": 0.5})
    simulation = play(run, contender("sal"))
    assert min(demand.first - demand.arrived for demand in simulation.demands) == pytest.approx(0.6)


def test_what_arrives_during_a_step_waits_for_the_next():
    """Two requests to one engine: the second arrives 0.1 s into a step of 1 s."""
    run = setting([Call(0.0, 1000, 1), Call(0.0, 10, 1)], 1.0, replace(SERVER, max_sequences=8), engines={"count": 1})
    simulation = Simulation(run, contender("sal"), 1)
    simulation.demands[0].arrived, simulation.demands[1].arrived = 0.0, 0.1
    simulation.run()
    assert [demand.first for demand in simulation.demands] == pytest.approx([1.0, 1.01])


@pytest.mark.parametrize("routers", [{"count": 1}, {"count": 2, "shareSeconds": 0.005, "dispatchSeconds": 0.003}])
def test_what_waits_at_a_replica_that_slows_is_moved_and_nothing_is_lost(routers):
    slowdown = {"replica": 0, "factor": 8, "fromSeconds": 5, "forSeconds": 10}
    run = setting(mixed_calls(600), 20.0, engines={"count": 4, "slowdowns": [slowdown]}, routers=routers)
    parameters = [{"parameters": {"llumnix": {"maxMoves": most}}} for most in (0, 3)]
    stay, move = (play(run, contender("llumnix", **each)) for each in parameters)
    if routers["count"] > 1:
        for router in range(2):
            move._sharing._tell(router)
    assert_conserved(move)
    assert sum(engine.tokens for engine in move.engines) == sum(demand.output_tokens for demand in move.demands)
    moves = [demand.exchange.moves for demand in move.demands]
    assert 0 < sum(moves) < 300
    assert max(moves) <= 3
    waits = [sorted(demand.first - demand.arrived for demand in each.demands) for each in (stay, move)]
    assert waits[1][-6] < 0.7 * waits[0][-6]
