"""F7: three times as many requests as two replicas can answer, for a while; then as many as before."""

import asyncio
from pathlib import Path

from chaos.crowd import Crowd
from chaos.questions import Mix, Questions
from chaos.record import Record, p99
from chaos.stage import Stage, Up, ready, until

CLIENTS = 40
"""that together keep the queue from being empty"""
CALLERS = 40
"""who take turns in the queue; the backlog is of all of them"""
MIX = Mix(prompt_tokens=(500, 3500), answer_tokens=(10, 40), plain=0.2, tools=0.0)
SHORT_S = 36.0
"""until the oldest have waited for longer than the patience of the ordering: two thirds of this"""


async def play(stage: Stage, record: Record) -> None:
    """First find the capacity: a queue that is never empty; then 0.7, 3 and again 0.7 of it."""
    seconds = SHORT_S if record.short else 60.0
    async with stage.up(replicas=2, scheduling={"policy": "halffull"}) as up:
        await until(up.admin_url, lambda status: ready(status, 2))
        capacity = await _capacity(up, seconds / 2)
        memory = [_rss_mib(up.router())]
        now = asyncio.get_running_loop().time
        async with Crowd(lambda: up.url, Questions(10, MIX), rate=0.7 * capacity, callers=CALLERS) as crowd:
            await crowd.seconds(seconds / 2)
            crowd.rate, began = 3 * capacity, now()
            await crowd.seconds(seconds)
            memory.append(_rss_mib(up.router()))
            crowd.rate, ended = 0.7 * capacity, now()
            await crowd.seconds(max(seconds / 2, 15.0))
        outcomes = record.take(crowd)
        await record.read(up.admin_url)
    done = sum(not o.failure and began + seconds / 4 <= o.ended_s <= ended for o in outcomes) / (seconds * 3 / 4)
    before = [outcome for outcome in outcomes if outcome.due_s < began - 1.0]
    later = [outcome for outcome in outcomes if outcome.due_s >= ended + 5.0]
    record.figures |= {
        "capacityPerSecond": round(capacity, 2), "completedOverCapacity": round(done / capacity, 3),
        "rssMib": memory, "ttftP99Seconds": {"before": p99(before), "after": p99(later)},
    }  # fmt: skip
    record.goal("completed >= 95 % of capacity", done >= 0.95 * capacity)
    record.goal("router grew by < 100 MiB", memory[1] - memory[0] < 100)
    record.goal("refused, never broken", set(record.failed) <= {"429 queue_full", "504 queue_timeout"})
    record.goal("nothing failed before, nor from 5 s after", not any(o.failure for o in [*before, *later]))
    record.goal("p99 TTFT from 5 s after <= 1.5x of before", (p99(later) or 9e9) <= 1.5 * (p99(before) or 0))


async def _capacity(up: Up, seconds: float) -> float:
    """Completed requests per second with a queue that is never empty."""
    now = asyncio.get_running_loop().time
    began, ends = now() + seconds / 4, now() + seconds
    async with Crowd(lambda: up.url, Questions(11, MIX), rate=1e-9) as crowd:

        async def client() -> None:
            while now() < ends:
                await crowd.ask(now())

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return sum(not o.failure and began <= o.ended_s <= ends for o in crowd.outcomes) / (ends - began)


def _rss_mib(pid: int) -> float:
    """Memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024, 1)
