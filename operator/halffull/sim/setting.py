"""From the scenario document to what a run needs: lengths, rate, engine profile. Called by `compare`, once per scenario."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from halffull.api.scenario import Clients, Scenario
from halffull.sim import workload
from halffull.sim.conversation import link, with_histories
from halffull.sim.demand import Demand
from halffull.sim.presets import PRESETS, Lengths, Preset, Trace
from halffull.sim.profiles import PROFILES, Profile
from halffull.sim.saturation import saturated_throughput
from halffull.sim.trace import BLOCK_TOKENS, Call, Live, TraceError, read_trace, recorded_lengths

DEFAULT_LOAD = 0.9
DEFAULT_REQUESTS = 20_000


class SettingError(Exception):
    """A scenario that cannot be run: says why and what can be done."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A scenario made concrete."""

    scenario: Scenario
    profile: Profile
    prefix_cache: bool
    calls: tuple[Call, ...]
    """the requests of seed 0, in order"""
    poisson: bool
    saturation: float
    """requests per second of one saturated replica"""
    rate: float
    """requests per second that arrive"""

    def at_load(self, load: float) -> "Setting":
        """The same at another load."""
        return replace(self, rate=load * self.saturation * self.scenario.engines.count)

    @property
    def load(self) -> float:
        """Arrival rate over the saturated throughput of all replicas."""
        return self.rate / (self.saturation * self.scenario.engines.count)

    def solo_seconds(self, prompt_tokens: int) -> float:
        """Time to the first token of a prompt alone on one replica, without prefix hits (the unit of slowdown)."""
        profile = self.profile
        steps = -(-prompt_tokens // profile.max_batched_tokens)
        return (
            profile.base * steps
            + profile.per_prefill_token * prompt_tokens
            + profile.per_attention * prompt_tokens * prompt_tokens / 2
        )

    def demands(self, seed: int) -> list[Demand]:
        """The requests of one run, by arrival."""
        calls = workload.permuted(self.calls, seed)
        clients = self.scenario.clients
        if self.poisson:
            times = workload.poisson_times(len(calls), self.rate, seed)
        else:
            times = workload.recorded_times(self.calls, self.rate, seed)  # permuting lengths leaves arrivals in order
        if clients.sessions is not None:
            calls = with_histories(calls, clients.sessions, self.profile.kv_tokens)
        rng = Random(f"clients {seed}")
        demands = [
            _demand(number, at, call, clients, rng) for number, (at, call) in enumerate(zip(times, calls, strict=True))
        ]
        if clients.sessions is not None:
            link(demands, clients.sessions, rng)
        return demands


def setting(scenario: Scenario) -> Setting:
    """Read the trace, measure saturation. Raises SettingError, TraceError."""
    preset = PRESETS.get(scenario.workload)
    if preset is None:
        raise SettingError(f"workload {scenario.workload!r} is unknown; allowed: {', '.join(PRESETS)}")
    engines = scenario.engines
    _check(scenario)
    profile = PROFILES[engines.profile or preset.profile]
    batched = engines.max_batched_tokens or preset.max_batched_tokens
    profile = replace(
        profile,
        kv_tokens=engines.kv_tokens or preset.kv_tokens,
        max_batched_tokens=batched,
        max_sequences=engines.max_sequences or min(profile.max_sequences, batched),
    )
    pool = _pool(scenario, preset)
    live = pool[0].live is not None
    poisson = preset.poisson and not live if scenario.arrivals is None else scenario.arrivals == "poisson"
    if not poisson and not pool[-1].at_s:
        raise SettingError(
            f"workload {scenario.workload} needs recorded arrivals: give --trace with {_file(preset)}, or --arrivals poisson"
        )
    if poisson:
        calls = tuple(workload.repeated(pool, scenario.requests or max(len(pool), DEFAULT_REQUESTS)))
    else:
        calls = pool[: scenario.requests]
    if (sessions := scenario.clients.sessions) is not None:
        if pool[0].blocks:
            raise SettingError("clients.sessions: the trace has conversations of its own, its prompts share blocks")
        pool = tuple(with_histories(pool, sessions, profile.kv_tokens))
    _check_size(calls, profile)
    saturation = saturated_throughput(pool, profile)
    rate = scenario.rate or (scenario.load or DEFAULT_LOAD) * saturation * engines.count
    if live and not (poisson or scenario.rate or scenario.load):
        rate = len(calls) / (calls[-1].at_s - calls[0].at_s)  # as it was
    prefix_cache = preset.prefix_cache or live if engines.prefix_cache is None else engines.prefix_cache
    return Setting(scenario, profile, prefix_cache, calls, poisson, saturation, rate)


def _check(scenario: Scenario) -> None:
    """Raises SettingError where a field names a contender or a replica that is not there."""
    names = [contender.name for contender in scenario.contenders]
    if len(set(names)) < len(names):
        raise SettingError(f"contenders: each needs a name of its own, not {', '.join(names)}")
    if scenario.baseline is not None and scenario.baseline not in names:
        raise SettingError(f"baseline: {scenario.baseline!r} is not allowed; allowed: {', '.join(names)}")
    engines = scenario.engines
    named = {f"slowdowns[{place}]": each.replica for place, each in enumerate(engines.slowdowns)}
    named |= {f"outages[{place}]": each.replica for place, each in enumerate(engines.outages)}
    named |= {f"others[{place}]": each.replica for place, each in enumerate(engines.others)}
    for where, replica in named.items():
        if replica >= engines.count:
            allowed = f"0 to {engines.count - 1}"
            raise SettingError(f"engines.{where}.replica: {replica} is not allowed; allowed: {allowed}")


def _pool(scenario: Scenario, preset: Preset) -> tuple[Call, ...]:
    """The requests that the workload is made of."""
    lengths = preset.lengths
    if scenario.trace is not None:
        path = Path(scenario.trace)
        return tuple(read_trace(path / lengths.file if path.is_dir() and isinstance(lengths, Trace) else path))
    if isinstance(lengths, Lengths):
        return tuple(workload.drawn(lengths, scenario.requests or DEFAULT_REQUESTS, Random(0)))
    if lengths.recorded is not None:
        return tuple(recorded_lengths(lengths.recorded))
    raise SettingError(f"workload {scenario.workload} needs its trace: give --trace with the path of {lengths.file}")


def _file(preset: Preset) -> str:
    return preset.lengths.file if isinstance(preset.lengths, Trace) else "a file that has them"


def _check_size(calls: Sequence[Call], profile: Profile) -> None:
    longest = max(call.prompt_tokens + call.output_tokens for call in calls)
    if longest > profile.kv_tokens:
        raise TraceError(f"a request of {longest} tokens does not fit in a KV cache of {profile.kv_tokens}")


def _demand(number: int, at: float, call: Call, clients: Clients, rng: Random) -> Demand:
    factor = clients.token_bias
    if clients.token_noise:
        factor *= rng.lognormvariate(0.0, clients.token_noise)
    told = call.live or Live(
        clients.streamed >= 1 or rng.random() < clients.streamed,
        0 if not clients.urgent or rng.random() < clients.urgent else 1,
        f"caller-{rng.randrange(clients.callers)}" if clients.callers > 1 else "",
        "",
    )
    return Demand(
        number=number,
        arrived=at,
        prompt_tokens=call.prompt_tokens,
        output_tokens=call.output_tokens,
        blocks=call.blocks[: call.prompt_tokens // BLOCK_TOKENS],
        estimate=max(1, round(call.prompt_tokens * factor)),
        stream=told.stream,
        priority=told.priority,
        caller=told.caller,
        session=told.session,
        router=rng.random(),
    )
