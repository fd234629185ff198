"""The rebalancer: from what replicas and routers say, the weights that correct for slower or shared replicas, and who is out.

Callers: the operator's periodic task, `halffull up`, the simulator. A value goes in and comes out, time is an argument.
Weights carry slow facts only, a replica's relative speed (`speed`) and the load that others put on it (`trust`): load as told
by metrics is older than its use. A replica that stands still is suspended, and so is one whose metrics contradict the books
where stale metrics exclude a replica; it comes back after a while, and its routers then try it with one request.

    fleet = observe(fleet, {name: Reading(...), ...}, now)     # after each round of scrapes
    fleet, decision = rebalance(fleet, now, Settings())

Without enough evidence nothing is concluded and a weight stays; constant evidence changes nothing after the first call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import exp, floor, inf, sqrt

from halffull.core.health import PREFILL_FACTOR
from halffull.core.speed import MIN_RUNNING, Interval, error, interval, restarted, speed, step_work
from halffull.core.trust import Finding, Look, judge, kept
from halffull.core.values import Signals

NONE = 0.02
"""part of a replica below which others' load is none"""
SURE = 4.0
"""standard errors of a relative speed below which a change of it may be chance: a fleet is looked at thousands of times a day"""


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
    """the same where an engine does not tell the time between tokens, or others load it: requests are then sampled, which is
    noisy"""
    lowest: float = 0.1
    """no weight is lower"""
    others_s: float = 120.0
    """time constant of the average of others' load: it comes in waves, and piles up where a replica is congested"""
    settle_s: float = 30.0
    """time between two changes of one replica's weight"""
    back_s: float = 60.0
    """time after which a suspended replica is tried again, doubling with each suspension up to `back_last_s`"""
    back_last_s: float = 600.0
    suspend_liars: bool = False
    """whether metrics that contradict the books suspend a replica; else they are only not believed"""
    stale_after_s: float = 15.0
    """age at which a replica's last metrics are stale; should be two or more intervals of the caller"""


@dataclass(frozen=True, slots=True)
class Reading:
    """One replica in one round."""

    signals: Signals | None = None
    """its metrics; None: they could not be read"""
    in_flight: int | None = None
    """requests that the routers have there, by their books; None: not all of them could be asked"""
    prefill_rate: float | None = None
    """prompt tokens/s that the routers have learned, the median over routers; used where engines count no tokens"""
    seen_tokens: int | None = None
    """tokens of answers that the routers have seen so far, prompts included; None: as for `in_flight`"""
    prefill_s: float = 0.0
    """time that it needs for the prompts that wait there, as the routers have learned"""
    down: bool = False
    """whether its routers or discovery have taken it out"""


@dataclass(frozen=True, slots=True)
class Page:
    """What is known of one replica."""

    weight: float = 1.0
    alone: float = 1.0
    """what its weight would be without load of others, as last known"""
    shared: float | None = None
    """part of it that others take, averaged; None: not known yet"""
    shared_at: float = 0.0
    changed_at: float | None = None
    changed_by: float = 0.0
    """the last change of the weight"""
    read_at: float | None = None
    """when its metrics were last read"""
    last_at: float = 0.0
    last: Reading = field(default_factory=Reading)
    told: Signals | None = None
    """its last metrics that could be read: a process that starts anew cannot be asked for a while"""
    evidence: tuple[Interval, ...] = ()
    looks: tuple[Look, ...] = ()
    moved_at: float = 0.0
    """when a token was last seen to be made, or nothing was there to make one for"""
    suspended: str = ""
    """why it is suspended; empty: it is not"""
    suspended_at: float | None = None
    suspensions: int = 0
    """in a row; counted anew once it has worked again for a while"""
    lie: str = ""
    """why its metrics are not believed; empty: they are"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The rebalancer's whole state."""

    pages: Mapping[str, Page] = field(default_factory=dict)


class Act(StrEnum):
    """What was done to a replica; the reason of the Event."""

    REBALANCED = "Rebalanced"
    SUSPENDED = "ReplicaSuspended"
    RESUMED = "ReplicaResumed"
    DISTRUSTED = "MetricsDistrusted"
    TRUSTED = "MetricsTrusted"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that changed, for the Event: told once."""

    replica: str
    before: float
    """its weight"""
    after: float
    reason: str
    act: Act = Act.REBALANCED


@dataclass(frozen=True, slots=True)
class Decision:
    """What to publish and to show."""

    weights: Mapping[str, float]
    """of every replica, 0.1 to 1, two decimals"""
    speeds: Mapping[str, float | None]
    """relative to the fastest replica, two decimals; None: not enough evidence"""
    marks: Mapping[str, Mark]
    changes: tuple[Change, ...]
    suspended: Mapping[str, str] = field(default_factory=dict)
    """why, by name of the replicas that are"""
    distrusted: Mapping[str, str] = field(default_factory=dict)
    """why, by name of the replicas whose metrics are not believed"""
    pressures: Mapping[str, float] = field(default_factory=dict)
    """see `pressure`; of the replicas that tell enough"""
    foreign: Mapping[str, float] = field(default_factory=dict)
    """requests that others have at each replica, where there are any"""


def carried(weights: Mapping[str, float], suspended: Mapping[str, str] | None = None) -> Fleet:
    """Return the state after a restart of the caller: what is published, and no evidence yet."""
    out = suspended or {}
    return Fleet(
        {
            name: Page(weight=weights.get(name, 1.0), alone=weights.get(name, 1.0), suspended=out.get(name, ""))
            for name in {**weights, **out}
        }
    )


def pressure(signals: Signals | None) -> float | None:
    """Return how full an engine is: the KV cache in use, 1 and more where requests wait; None: it does not tell.

    1 plus the waiting requests per running one: how many batches as large as the one that runs are asked for.
    """
    if signals is None or (signals.kv_usage is None and signals.waiting is None):
        return None
    if signals.waiting:
        return 1 + signals.waiting / max(signals.running or 0.0, 1.0)
    return signals.kv_usage or 0.0


def observe(fleet: Fleet, readings: Mapping[str, Reading], now: float, settings: Settings | None = None) -> Fleet:
    """Take one round of readings, of all replicas that exist now; the others are forgotten."""
    limits = settings or Settings()
    return Fleet(
        {name: _read(fleet.pages.get(name, Page()), reading, now, limits) for name, reading in readings.items()}
    )


def rebalance(fleet: Fleet, now: float, settings: Settings | None = None) -> tuple[Fleet, Decision]:
    """Decide on weights and suspensions."""
    limits = settings or Settings()
    findings = {name: judge(page.looks) for name, page in fleet.pages.items()}
    marks = {name: _mark(page, now, limits) for name, page in fleet.pages.items()}
    pages, changes = _believe(fleet.pages, findings)
    pages, more = _suspend(pages, findings, now, limits)
    changes += more
    step = step_work(page.evidence for page in pages.values())
    speeds = _relative_speeds(pages, step, limits)
    for name, page in pages.items():
        if (known := speeds[name]) is not None:
            pages[name] = replace(page, alone=known)
    _share(pages, findings, now, limits)
    for name, (share, why) in _wanted(pages, findings, speeds).items():
        page, wanted = pages[name], max(limits.lowest, share)
        settled = page.changed_at is None or now - page.changed_at >= limits.settle_s
        coarse = any(each.coarse for each in page.evidence) or page.shared
        hysteresis = limits.coarse_hysteresis if coarse else limits.hysteresis
        whole = wanted * (1 + hysteresis) >= 1
        if not whole and (wanted - page.weight) * page.changed_by < 0:
            hysteresis *= 2  # to and fro is more likely noise than news
        if marks[name] is not Mark.FRESH or not settled or abs(wanted - page.weight) <= hysteresis * page.weight:
            continue
        doubt = SURE * _error(name, pages, speeds, step)
        if min(wanted, page.weight) >= max(wanted, page.weight) * (1 - doubt):
            continue
        # 1 if close, else it could never return to 1; else cut: a hundredth too much costs the slow replica's requests more than
        # one too little costs all the others (100 * 0.29 is less than 29, hence the sum)
        weight = 1.0 if whole else floor(100 * wanted + 1e-6) / 100
        if weight != page.weight:
            pages[name] = replace(page, weight=weight, changed_at=now, changed_by=weight - page.weight)
            reason = f"{why if weight < 1 else 'is as fast as the fastest'}: weight {page.weight:g} -> {weight:g}"
            changes.append(Change(name, page.weight, weight, reason))
    decision = Decision(
        weights={name: page.weight for name, page in pages.items()},
        speeds={name: None if speed is None else round(speed, 2) for name, speed in speeds.items()},
        marks=marks,
        changes=tuple(changes),
        suspended={name: page.suspended for name, page in pages.items() if page.suspended},
        distrusted={name: page.lie for name, page in pages.items() if page.lie},
        pressures={name: p for name, page in pages.items() if (p := pressure(page.last.signals)) is not None},
        foreign={name: round(finding.foreign, 1) for name, finding in findings.items() if finding.foreign},
    )
    return Fleet(pages), decision


def _read(page: Page, reading: Reading, now: float, limits: Settings) -> Page:
    """Return the page with what happened since its last reading."""
    evidence, before, after = page.evidence, page.last.signals, reading.signals
    anew = restarted(page.told, after)
    if anew:
        evidence = ()
    elif before is not None and after is not None:
        in_flight = (page.last.in_flight or 0, reading.in_flight or 0)
        found = interval((page.last_at, now), before, after, in_flight=in_flight, prefill_rate=reading.prefill_rate)
        evidence = (*evidence, found) if found else evidence
    busy = sum(each.busy_s for each in evidence)
    while evidence and (busy - evidence[0].busy_s >= limits.window_s or now - evidence[0].until > limits.memory_s):
        busy -= evidence[0].busy_s
        evidence = evidence[1:]
    look = _look(reading, now)
    still = page.looks and (look.made, look.seen) == (page.looks[-1].made, page.looks[-1].seen)
    moved_at = page.moved_at if still and (look.held or look.booked) else now
    looks = kept(page.looks, look)
    if anew:  # another process: what the last one was suspended for is over
        page = replace(page, suspended_at=-inf if page.suspended else page.suspended_at)
        looks = looks[-1:]
    if after is not None:
        page = replace(page, read_at=now, told=after)
    return replace(page, last_at=now, last=reading, evidence=evidence, looks=looks, moved_at=moved_at)


def _look(reading: Reading, now: float) -> Look:
    signals = reading.signals or Signals()
    held = None if signals.running is None else signals.running + (signals.waiting or 0.0)
    counted = signals.prompt_tokens is not None and signals.generation_tokens is not None
    made = (signals.prompt_tokens or 0.0) + (signals.generation_tokens or 0.0) if counted else None
    return Look(now, held, made, reading.in_flight, reading.seen_tokens)


def _believe(pages: Mapping[str, Page], findings: Mapping[str, Finding]) -> tuple[dict[str, Page], list[Change]]:
    """Note whose metrics contradict the books, and whose do no longer."""
    made, changes = dict(pages), []
    for name, page in pages.items():
        lie, known = findings[name].lie, findings[name].known
        if bool(lie) != bool(page.lie) and (lie or known):
            act, why = (Act.DISTRUSTED, lie) if lie else (Act.TRUSTED, "tells what the routers see again")
            made[name] = replace(page, lie=lie, evidence=())
            changes.append(Change(name, page.weight, page.weight, why, act))
    return made, changes


def _suspend(
    pages: dict[str, Page], findings: Mapping[str, Finding], now: float, limits: Settings
) -> tuple[dict[str, Page], list[Change]]:
    """Suspend who stands still, at most half of the fleet with those that are down anyway, and take back who may try again."""
    changes: list[Change] = []
    for name, page in pages.items():
        if not page.suspended:
            continue
        since = now if page.suspended_at is None else page.suspended_at
        rest_s = min(limits.back_s * 2 ** max(page.suspensions - 1, 0), limits.back_last_s)
        if now - since < rest_s:
            pages[name] = replace(page, suspended_at=since)
            continue
        pages[name] = replace(page, suspended="", suspended_at=now, looks=(), evidence=())
        changes.append(Change(name, page.weight, page.weight, "is tried again with one request", Act.RESUMED))
    out = sum(bool(page.suspended) or page.last.down for page in pages.values())
    for name, page in pages.items():
        # an engine that counts a prompt at its end is silent until then
        patience_s = PREFILL_FACTOR * page.last.prefill_s
        stuck = findings[name].stuck if now - page.moved_at >= patience_s else ""
        why = stuck or (findings[name].lie if limits.suspend_liars else "")
        if not why or page.suspended or not page.looks:
            continue
        out += not page.last.down
        if 2 * out > len(pages):
            break
        again = page.suspended_at is not None and now - page.suspended_at < 2 * limits.back_last_s
        count = page.suspensions + 1 if again else 1
        pages[name] = replace(page, suspended=why, suspended_at=now, suspensions=count)
        changes.append(Change(name, page.weight, page.weight, why, Act.SUSPENDED))
    return pages, changes


def _share(pages: dict[str, Page], findings: Mapping[str, Finding], now: float, limits: Settings) -> None:
    """Note which part of each replica others take, of those that hold enough to tell.

    In a balanced fleet requests are where speed is: each replica holds its share of all, and what others have there is a
    part of that share.
    """
    held = {name: finding.held for name, finding in findings.items() if finding.held is not None and finding.known}
    level = sum(held.values()) / (sum(pages[name].alone for name in held) or 1.0)
    for name in held:
        page = pages[name]
        if level * page.alone >= MIN_RUNNING:
            share = min(findings[name].foreign / (level * page.alone), 1.0)
            before = share if page.shared is None else page.shared
            average = before + (share - before) * (1 - exp(-(now - page.shared_at) / limits.others_s))
            pages[name] = replace(page, shared=average if average > NONE else 0.0, shared_at=now)


def _wanted(
    pages: Mapping[str, Page], findings: Mapping[str, Finding], speeds: Mapping[str, float | None]
) -> dict[str, tuple[float, str]]:
    """Return the weight that each replica should have, and why, of those of which something new is known."""
    wanted: dict[str, tuple[float, str]] = {}
    for name, page in pages.items():
        if speeds[name] is None and not (findings[name].known and page.shared is not None):
            continue
        taken = page.shared or 0.0
        why = [f"runs at {page.alone:.0%} of the fastest replica's speed"] if page.alone < 1 else []
        why += [f"others take {taken:.0%} of it"] if taken else []
        wanted[name] = (page.alone * (1 - taken), " and ".join(why))
    most = max((weight for weight, _ in wanted.values()), default=0.0) or 1.0
    return {name: (weight / most, why) for name, (weight, why) in wanted.items()}


def _relative_speeds(pages: Mapping[str, Page], step: float, limits: Settings) -> dict[str, float | None]:
    """Return each replica's speed relative to the fastest; None without enough evidence or nobody to compare with.

    Counted work and routers' estimates are different units: estimates are used only where no engine counts.
    """
    speeds: dict[str, float | None] = {}
    for counted in (True, False):
        speeds = {
            name: None
            if page.lie or page.suspended or _stands_still(page)
            else speed(page.evidence, limits.evidence_s, step, counted=counted)
            for name, page in pages.items()
        }
        if any(speeds.values()):
            break
    # who stands still, now or for all that is known, is for the suspension, not for a weight
    speeds = {name: found or None for name, found in speeds.items()}
    known = [found for found in speeds.values() if found is not None]
    if not known or (len(known) == 1 and len(speeds) > 1):
        return dict.fromkeys(speeds)
    fastest = max(known)
    return {name: found / fastest if found is not None else None for name, found in speeds.items()}


def _stands_still(page: Page) -> bool:
    """Whether it held requests at the last look and its counters had not moved."""
    return bool(page.looks) and page.looks[-1].made is not None and page.moved_at < page.last_at


def _error(name: str, pages: Mapping[str, Page], speeds: Mapping[str, float | None], step: float) -> float:
    """Return the relative standard error of a replica's speed relative to the fastest; 0 where it is not known."""
    if speeds[name] is None:
        return 0.0
    errors = [
        error(pages[each].evidence, step, counted=any(found.counted for found in pages[each].evidence))
        for each in {name, max(speeds, key=lambda one: speeds[one] or 0.0)}
    ]
    return sqrt(sum(each**2 for each in errors))


def _mark(page: Page, now: float, limits: Settings) -> Mark:
    if page.read_at is None:
        return Mark.NONE
    return Mark.FRESH if now - page.read_at <= limits.stale_after_s else Mark.STALE
