"""The simulator against queueing theory: engines that serve one request at a time, exponential service."""

from dataclasses import replace
from math import factorial
from random import Random

import pytest

from halffull.sim.trace import Call
from simulated_runs import SERVER, contender, measured, play, setting

SERVICE_S = 0.02
QUICK = replace(SERVER, per_prefill_token=SERVICE_S / 1000)


def exponential_calls(count: int) -> list[Call]:
    rng = Random(7)
    return [Call(0.0, max(1, round(1000 * rng.expovariate(1.0))), 1) for _ in range(count)]


def mean_wait(simulation) -> float:
    demands = measured(simulation)
    return sum(demand.first - demand.arrived - SERVICE_S * demand.prompt_tokens / 1000 for demand in demands) / len(
        demands
    )


def erlang_c(servers: int, load: float) -> float:
    """Probability that an arrival waits in M/M/n; `load` per server."""
    offered = servers * load
    last = offered**servers / factorial(servers) / (1 - load)
    return last / (sum(offered**k / factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_replica_is_mm1(load):
    run = setting(exponential_calls(40_000), load / SERVICE_S, QUICK, engines={"count": 1})
    expected = load / (1 - load) * SERVICE_S
    assert mean_wait(play(run, contender("round-robin", gate="none"))) == pytest.approx(expected, rel=0.08)


def test_a_queue_in_the_router_before_eight_replicas_is_mm8():
    load = 0.8
    run = setting(exponential_calls(40_000), 8 * load / SERVICE_S, QUICK, engines={"count": 8})
    single = {"parameters": {"limit": {"maxInFlight": 1}}}
    expected = erlang_c(8, load) * SERVICE_S / (8 * (1 - load))
    wait = mean_wait(play(run, contender("random", gate="limit", **single)))
    assert wait == pytest.approx(expected, rel=0.1)


def test_random_over_eight_replicas_is_eight_times_mm1():
    load = 0.8
    run = setting(exponential_calls(40_000), 8 * load / SERVICE_S, QUICK, engines={"count": 8})
    wait = mean_wait(play(run, contender("random", gate="none")))
    assert wait == pytest.approx(load / (1 - load) * SERVICE_S, rel=0.1)
