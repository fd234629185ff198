"""How fast a replica works, from what its token counters moved through between two looks. Called by `balance`.

What is compared is work over time, as tokens wait for one another in a batch: the seconds between successive tokens, summed
over all requests, are what the engine's steps took, each counted once for every request that it gave a token. The work of
the same steps, counted the same way, is known from the tokens but for the prefill that a decoding request waited for: for that
the prompts are taken to meet as many decoding requests as there are on average. So idle time needs no estimate, and neither
bursts nor long pauses make a replica look slow or fast.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, sqrt

from halffull.core.values import Signals

STEP_WORK = 200.0
"""work of an engine's step whatever is in it, in units of a prompt token: its weights are read; until the fleet tells it.
Fits of 8B models give 110 to 340 (A100, H100)"""
LEAST_STEP_WORK, MOST_STEP_WORK = 20.0, 1000.0
STEP_EVIDENCE = 500.0
"""squared tokens per second of deviation that outweigh the value above"""
DECODE_WORK = 0.5
"""work of one generated token, in units of a prompt token (0.4 to 0.9 in the same fits)"""
KV_WORK = 0.001
"""work of reading one token's KV in a step, in units of a prompt token (0.001 to 0.0017)"""
MIN_RUNNING = 2.0
"""where an engine does not tell the time between tokens: with fewer requests at both ends it may have been idle in between"""
LONGEST_INTERVAL_S = 120.0
"""readings further apart say nothing about what was between"""


@dataclass(frozen=True, slots=True)
class Interval:
    """What a replica did between two readings."""

    until: float
    busy_s: float
    """time in which requests decoded: how much evidence this is"""
    seconds: float
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
    """whether `token_seconds` is an estimate from the running requests"""

    @property
    def work_of_tokens(self) -> float:
        """Work of what was in the steps, each counted once for every request that it gave a token, in prompt tokens."""
        decoding = self.token_seconds / self.seconds
        return self.generated * (DECODE_WORK * (decoding + 1) + KV_WORK * self.kv) + self.prompt * decoding


def interval(
    times: tuple[float, float],
    before: Signals,
    after: Signals,
    *,
    in_flight: tuple[int, int],
    prefill_rate: float | None,
) -> Interval | None:
    """Return what the replica did between two looks at `times`; None where it did nothing, or nothing is known.

    `in_flight`: requests that routers had there at both; `prefill_rate`: what they learned, tokens/s, for engines that count
    no tokens. The time between tokens, summed, is the mean number B of requests that decoded, times the time. At random
    arrivals that number is about Poisson distributed, so the replica decoded a share 1 - exp(-B) of the time.
    """
    seconds, until = times[1] - times[0], times[1]
    if not 0 < seconds <= LONGEST_INTERVAL_S:
        return None
    kv = (_kv_in_use(before) + _kv_in_use(after)) / 2
    prompt = _since(before.prompt_tokens, after.prompt_tokens)
    generated = _since(before.generation_tokens, after.generation_tokens)
    token_seconds = _since(before.token_seconds, after.token_seconds)
    if prompt is not None and generated is not None:
        prompt = max(0.0, prompt - (_since(before.prefix_hits, after.prefix_hits) or 0.0))
        if token_seconds is not None:
            busy_s = seconds * (1 - exp(-token_seconds / seconds))
            found = Interval(until, busy_s, seconds, prompt, generated, token_seconds, kv)
            return found if token_seconds > 0 else None
    least = min(before.running or in_flight[0], after.running or in_flight[1])
    if least < MIN_RUNNING:
        return None
    running = max(least, ((before.running or 0.0) + (after.running or 0.0)) / 2)
    if prompt is not None and generated is not None:
        return Interval(until, seconds, seconds, prompt, generated, running * seconds, kv, coarse=True)
    if prefill_rate:
        learned = prefill_rate * seconds
        return Interval(until, seconds, seconds, learned, 0.0, running * seconds, 0.0, counted=False, coarse=True)
    return None


def step_work(fleet: Iterable[Sequence[Interval]]) -> float:
    """Return the work of a step whatever is in it, in prompt tokens: that with which each replica's speed varies least.

    Weighted least squares over the intervals of all replicas, each with a speed of its own, towards `STEP_WORK`.
    """
    numerator, denominator = STEP_EVIDENCE * STEP_WORK, STEP_EVIDENCE
    for evidence in fleet:
        used = [each for each in evidence if each.counted and not each.coarse]
        seconds = sum(each.token_seconds for each in used) or 1.0
        work = sum(each.work_of_tokens for each in used) / seconds
        tokens = sum(each.generated for each in used) / seconds
        for each in used:
            more_tokens = each.generated - each.token_seconds * tokens
            more_work = each.work_of_tokens - each.token_seconds * work
            numerator -= more_work * more_tokens / each.token_seconds
            denominator += more_tokens**2 / each.token_seconds
    return min(max(numerator / denominator, LEAST_STEP_WORK), MOST_STEP_WORK)


def speed(evidence: Sequence[Interval], evidence_s: float, step: float, *, counted: bool) -> float | None:
    """Return work per second, in prompt tokens' worth; None without `evidence_s` of evidence. `step`: see `step_work`."""
    used = [each for each in evidence if each.counted is counted]
    if sum(each.busy_s for each in used) < evidence_s:
        return None
    work = sum(each.work_of_tokens + each.generated * step for each in used)
    return work / sum(each.token_seconds for each in used)


def error(evidence: Sequence[Interval], step: float, *, counted: bool) -> float:
    """Return the relative standard error of `speed`: of a ratio of sums over intervals that differ by chance.

    That of few is larger, as the variance of Student's t. 0 where that has none: three intervals make enough evidence only where
    each is long. Source: Cochran, Sampling Techniques, 3rd ed., section 6.4.
    """
    used = [each for each in evidence if each.counted is counted]
    works = [each.work_of_tokens + each.generated * step for each in used]
    if len(used) <= 3 or not sum(works):
        return 0.0
    found = sum(works) / sum(each.token_seconds for each in used)
    squares = sum((work - found * each.token_seconds) ** 2 for work, each in zip(works, used, strict=True))
    return sqrt(squares * len(used) / (len(used) - 3)) / sum(works)


def restarted(before: Signals | None, after: Signals | None) -> bool:
    """Whether a counter went back: another process, perhaps on another machine."""
    if before is None or after is None:
        return False
    counters = (
        (before.prompt_tokens, after.prompt_tokens),
        (before.generation_tokens, after.generation_tokens),
        (before.token_seconds, after.token_seconds),
    )
    return any(old is not None and new is not None and new < old for old, new in counters)


def _since(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _kv_in_use(signals: Signals) -> float:
    return (signals.kv_usage or 0.0) * (signals.kv_tokens or 0.0)
