"""Scenarios for tests of the simulator: small runs with known answers."""

from dataclasses import replace

from halffull.api.scenario import Contender, Scenario
from halffull.sim.demand import Demand
from halffull.sim.profiles import PROFILES
from halffull.sim.setting import Setting
from halffull.sim.simulation import Simulation
from halffull.sim.trace import Call

SERVER = replace(
    PROFILES["a100"],
    base=0.0,
    per_prefill_token=1e-3,
    per_attention=0.0,
    per_decode=0.0,
    per_kv_token=0.0,
    kv_tokens=1 << 60,
    max_batched_tokens=1 << 40,
    max_sequences=1,
)
"""an engine that serves one request at a time, for 1 ms per prompt token: a server of queueing theory"""


def contender(policy: str, ordering: str | None = None, gate: str | None = None, **more) -> Contender:
    scheduling = {"policy": policy} | ({"ordering": ordering} if ordering else {}) | ({"gate": gate} if gate else {})
    return Contender.model_validate({"name": policy, "scheduling": scheduling | more})


def setting(calls: list[Call], rate: float, profile=None, **scenario) -> Setting:
    document = Scenario.model_validate({"seeds": 1, **scenario})
    calls = tuple(calls)
    return Setting(document, profile or PROFILES["a100"], bool(document.engines.prefix_cache), calls, True, rate, rate)


def play(setting: Setting, contender: Contender, seed: int = 1) -> Simulation:
    simulation = Simulation(setting, contender, seed)
    simulation.run()
    return simulation


def measured(simulation: Simulation) -> list[Demand]:
    return [demand for demand in simulation.demands if demand.arrived > 0.1 * simulation.demands[-1].arrived]
