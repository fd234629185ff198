"""The replicas of a simulated run, as its scenario describes them. Called by `simulation`."""

from dataclasses import replace

from halffull.api.scenario import Contender
from halffull.core.books import Replica
from halffull.core.peers import DEFERENCE_S
from halffull.sim.profiles import Profile
from halffull.sim.setting import Setting
from halffull.sim.trace import BLOCK_TOKENS
from halffull.sim.virtual_engine import Page, VirtualEngine


def virtual_engines(setting: Setting, contender: Contender) -> list[VirtualEngine]:
    """All replicas, each with a page per router; one large one for the bound `super`."""
    engines = setting.scenario.engines
    if contender.bound == "super":
        return [_engine(setting, 0, pooled(setting.profile, engines.count), 1.0)]
    speeds, parts = engines.speeds or (1.0,), engines.kv_parts or (1.0,)
    profiles = [replace(setting.profile, kv_tokens=round(setting.profile.kv_tokens * part)) for part in parts]
    return [
        _engine(setting, index, profiles[index % len(parts)], speeds[index % len(speeds)])
        for index in range(engines.count)
    ]


def pooled(profile: Profile, replicas: int) -> Profile:
    """One replica with the speed and the memory of all."""
    return replace(
        profile,
        base=profile.base / replicas,
        per_prefill_token=profile.per_prefill_token / replicas,
        per_attention=profile.per_attention / replicas,
        per_decode=profile.per_decode / replicas,
        per_kv_token=profile.per_kv_token / replicas,
        kv_tokens=profile.kv_tokens * replicas,
        max_batched_tokens=profile.max_batched_tokens * replicas,
        max_sequences=profile.max_sequences * replicas,
    )


def replica_of(index: int, profile: Profile) -> Replica:
    """Return what a router knows of a replica before it has asked it anything."""
    limits = {"max_sequences": profile.max_sequences, "max_batched_tokens": profile.max_batched_tokens}
    return Replica(f"replica-{index}", "simulated", 8000 + index, **limits)


def true_rate(profile: Profile, slowness: float) -> float:
    """Prompt tokens per second of a replica that is so much slower than its profile."""
    return 1 / (profile.per_prefill_token * slowness)


def _engine(setting: Setting, index: int, profile: Profile, speed: float) -> VirtualEngine:
    pages, routers = [], setting.scenario.routers
    sharing = routers.share_seconds is not None
    for router in range(routers.count):
        replica = replica_of(index, profile)
        replica.kv_tokens = float(profile.kv_tokens)
        if setting.scenario.engines.speeds_told:
            replica.prefill_rate_told = true_rate(profile, 1 / speed)
        if sharing and index % routers.count != router:
            replica.deference_s = DEFERENCE_S
        pages.append(Page(replica))
    return VirtualEngine(index, profile, 1 / speed, pages, block_size=BLOCK_TOKENS, prefix_cache=setting.prefix_cache)
