"""The rebalancer: from what replicas and routers say, the weights that correct for replicas that are slower than others.

Callers: the operator's periodic task, `halffull up`, the simulator. A value goes in and comes out, time is an argument.
Weights carry slow facts only, here a replica's relative speed: load as told by metrics is older than its use.

    fleet = observe(fleet, {name: Reading(...), ...}, now)     # after each round of scrapes
    fleet, decision = rebalance(fleet, now, Settings())

How speed is found: the work that a replica's token counters moved through is divided by the time that it was busy. Idle
time is left out, so an idle replica does not look slow; without enough evidence nothing is concluded and its weight stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import exp

from halffull.core.values import Signals

STEP_WORK = 200.0
"""work of an engine's step whatever is in it, in units of a prompt token: its weights are read. Fits of 8B models give
110 to 340 (A100, H100); the unit cancels, and errors show only where replicas' batches differ much"""
DECODE_WORK = 0.5
"""work of one generated token, in units of a prompt token (0.4 to 0.9 in the same fits)"""
KV_WORK = 0.001
"""work of reading one token's KV in a step, in units of a prompt token (0.001 to 0.0017)"""
MIN_RUNNING = 2.0
"""where an engine does not tell the time between tokens: with fewer requests at both ends it may have been idle in between"""
LONGEST_INTERVAL_S = 120.0
"""readings further apart say nothing about what was between"""


class Mark(StrEnum):
    """How current a replica's metrics are."""

    FRESH = "fresh"
    STALE = "stale"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """How evidence becomes weights. Times in seconds."""

    evidence_s: float = 30.0
    """busy time without which nothing is concluded"""
    window_s: float = 60.0
    """busy time that is remembered"""
    memory_s: float = 600.0
    """age at which evidence is forgotten"""
    hysteresis: float = 0.15
    """relative change of a weight that is worth making"""
    coarse_hysteresis: float = 0.3
    """the same where an engine does not tell the time between tokens: running requests are then sampled, which is noisy"""
    lowest: float = 0.1
    """no weight is lower"""
    settle_s: float = 30.0
    """time between two changes of one replica's weight"""
    stale_after_s: float = 15.0
    """age at which a replica's last metrics are stale; should be two or more intervals of the caller"""


@dataclass(frozen=True, slots=True)
class Reading:
    """One replica in one round."""

    signals: Signals | None = None
    """its metrics; None: they could not be read"""
    in_flight: int = 0
    """requests that the routers have there, by their books"""
    prefill_rate: float | None = None
    """prompt tokens/s that the routers have learned, the median over routers; used where engines count no tokens"""


@dataclass(frozen=True, slots=True)
class Interval:
    """What a replica did between two readings."""

    until: float
    busy_s: float
    """time in which it worked"""
    prompt: float
    """prompt tokens computed; prefixes found in the cache cost nothing"""
    generated: float
    """tokens generated"""
    token_seconds: float
    """time between tokens summed over requests; where the engine does not tell it, from the running requests at both ends"""
    kv: float
    """mean of the KV tokens in use; 0 where unknown"""
    counted: bool = True
    """whether tokens were counted by the engine; else `prompt` is the routers' estimate"""
    coarse: bool = False
    """whether `busy_s` and `token_seconds` are estimates from the running requests"""


@dataclass(frozen=True, slots=True)
class Page:
    """What is known of one replica."""

    weight: float = 1.0
    changed_at: float | None = None
    read_at: float | None = None
    """when its metrics were last read"""
    last_at: float = 0.0
    last: Reading = field(default_factory=Reading)
    evidence: tuple[Interval, ...] = ()


@dataclass(frozen=True, slots=True)
class Fleet:
    """The rebalancer's whole state."""

    pages: Mapping[str, Page] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """A weight that changed, for the Event."""

    replica: str
    before: float
    after: float
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to publish and to show."""

    weights: Mapping[str, float]
    """of every replica, 0.1 to 1, two decimals"""
    speeds: Mapping[str, float | None]
    """relative to the fastest replica, two decimals; None: not enough evidence"""
    marks: Mapping[str, Mark]
    changes: tuple[Change, ...]


def carried(weights: Mapping[str, float]) -> Fleet:
    """Return the state after a restart of the caller: the published weights and no evidence yet."""
    return Fleet({name: Page(weight=weight) for name, weight in weights.items()})


def observe(fleet: Fleet, readings: Mapping[str, Reading], now: float, settings: Settings | None = None) -> Fleet:
    """Take one round of readings, of all replicas that exist now; the others are forgotten."""
    limits = settings or Settings()
    return Fleet(
        {name: _read(fleet.pages.get(name, Page()), reading, now, limits) for name, reading in readings.items()}
    )


def rebalance(fleet: Fleet, now: float, settings: Settings | None = None) -> tuple[Fleet, Decision]:
    """Decide on weights; constant evidence changes nothing after the first call."""
    limits = settings or Settings()
    speeds = _relative_speeds(fleet, limits)
    marks = {name: _mark(page, now, limits) for name, page in fleet.pages.items()}
    pages, changes = dict(fleet.pages), []
    for name, page in fleet.pages.items():
        speed = speeds[name]
        if speed is None or marks[name] is not Mark.FRESH:
            continue
        wanted = max(limits.lowest, speed)
        settled = page.changed_at is None or now - page.changed_at >= limits.settle_s
        coarse = any(interval.coarse for interval in page.evidence)
        hysteresis = limits.coarse_hysteresis if coarse else limits.hysteresis
        if not settled or abs(wanted - page.weight) <= hysteresis * page.weight:
            continue
        weight = 1.0 if wanted * (1 + hysteresis) >= 1 else round(wanted, 2)  # else it could never return to 1
        if weight != page.weight:
            pages[name] = replace(page, weight=weight, changed_at=now)
            reason = (
                f"runs at {speed:.0%} of the fastest replica's speed" if weight < 1 else "is as fast as the fastest"
            )
            changes.append(Change(name, page.weight, weight, f"{reason}: weight {page.weight:g} -> {weight:g}"))
    decision = Decision(
        weights={name: page.weight for name, page in pages.items()},
        speeds={name: None if speed is None else round(speed, 2) for name, speed in speeds.items()},
        marks=marks,
        changes=tuple(changes),
    )
    return Fleet(pages), decision


def _read(page: Page, reading: Reading, now: float, limits: Settings) -> Page:
    """Return the page with what happened since its last reading."""
    evidence = page.evidence
    if _restarted(page.last.signals, reading.signals):
        evidence = ()
    else:
        interval = _interval(page, reading, now)
        evidence = (*evidence, interval) if interval else evidence
    busy = sum(interval.busy_s for interval in evidence)
    while evidence and (busy - evidence[0].busy_s >= limits.window_s or now - evidence[0].until > limits.memory_s):
        busy -= evidence[0].busy_s
        evidence = evidence[1:]
    read_at = now if reading.signals is not None else page.read_at
    return replace(page, read_at=read_at, last_at=now, last=reading, evidence=evidence)


def _restarted(before: Signals | None, after: Signals | None) -> bool:
    """Whether a counter went back: another process, perhaps on another machine."""
    if before is None or after is None:
        return False
    counters = (
        (before.prompt_tokens, after.prompt_tokens),
        (before.generation_tokens, after.generation_tokens),
        (before.token_seconds, after.token_seconds),
    )
    return any(old is not None and new is not None and new < old for old, new in counters)


def _interval(page: Page, reading: Reading, now: float) -> Interval | None:
    """Return what the replica did since its last reading; None where it did nothing, or nothing is known.

    The time between tokens, summed over requests, is the mean number B of requests that decoded, times the interval's
    length. At random arrivals that number is about Poisson distributed, so the replica was idle a share exp(-B).
    """
    seconds = now - page.last_at
    before, after = page.last.signals, reading.signals
    if not 0 < seconds <= LONGEST_INTERVAL_S or before is None or after is None:
        return None
    kv = (_kv_in_use(before) + _kv_in_use(after)) / 2
    prompt = _since(before.prompt_tokens, after.prompt_tokens)
    generated = _since(before.generation_tokens, after.generation_tokens)
    token_seconds = _since(before.token_seconds, after.token_seconds)
    if prompt is not None and generated is not None:
        prompt = max(0.0, prompt - (_since(before.prefix_hits, after.prefix_hits) or 0.0))
        if token_seconds is not None:
            busy_s = seconds * (1 - exp(-token_seconds / seconds))
            return Interval(now, busy_s, prompt, generated, token_seconds, kv) if token_seconds > 0 else None
    least = min(before.running or page.last.in_flight, after.running or reading.in_flight)
    if least < MIN_RUNNING:
        return None
    running = max(least, ((before.running or 0.0) + (after.running or 0.0)) / 2)
    if prompt is not None and generated is not None:
        return Interval(now, seconds, prompt, generated, running * seconds, kv, coarse=True)
    if reading.prefill_rate:
        learned = reading.prefill_rate * seconds
        return Interval(now, seconds, learned, 0.0, running * seconds, 0.0, counted=False, coarse=True)
    return None


def _since(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _kv_in_use(signals: Signals) -> float:
    return (signals.kv_usage or 0.0) * (signals.kv_tokens or 0.0)


def _relative_speeds(fleet: Fleet, limits: Settings) -> dict[str, float | None]:
    """Return each replica's speed relative to the fastest; None without enough evidence or nobody to compare with.

    Counted work and routers' estimates are different units: estimates are used only where no engine counts.
    """
    speeds: dict[str, float | None] = {}
    for counted in (True, False):
        speeds = {name: _speed(page.evidence, limits, counted=counted) for name, page in fleet.pages.items()}
        if any(speeds.values()):
            break
    # work of zero is a replica that stands still: for the routers' suspicion, not for a weight
    speeds = {name: speed or None for name, speed in speeds.items()}
    known = [speed for speed in speeds.values() if speed is not None]
    if not known or (len(known) == 1 and len(speeds) > 1):
        return dict.fromkeys(speeds)
    fastest = max(known)
    return {name: speed / fastest if speed is not None else None for name, speed in speeds.items()}


def _speed(evidence: tuple[Interval, ...], limits: Settings, *, counted: bool) -> float | None:
    """Return work per second of busy time, in prompt tokens' worth; None without enough evidence.

    A step lasts as long as the time between a request's tokens: busy time over that time are the steps.
    """
    used = [interval for interval in evidence if interval.counted is counted]
    busy = sum(interval.busy_s for interval in used)
    if busy < limits.evidence_s:
        return None
    generated = sum(interval.generated for interval in used)
    prompt = sum(interval.prompt for interval in used)
    token_seconds = sum(interval.token_seconds for interval in used)
    kv = sum(interval.kv * interval.busy_s for interval in used) / busy
    steps = busy * generated / token_seconds
    return (prompt + DECODE_WORK * generated + steps * (STEP_WORK + KV_WORK * kv)) / busy


def _mark(page: Page, now: float, limits: Settings) -> Mark:
    if page.read_at is None:
        return Mark.NONE
    return Mark.FRESH if now - page.read_at <= limits.stale_after_s else Mark.STALE
