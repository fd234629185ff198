"""F6: the metrics of all replicas go stale, vanish, turn to garbage, or lie for ever; and `whenStale: exclude` for one."""

from collections.abc import Callable

from chaos.crowd import Crowd
from chaos.questions import Mix, Questions
from chaos.record import Record, p99
from chaos.relay import Answer, Relay, text, up_behind_relays
from chaos.stage import Stage, Up, page, until

LIE = b"".join(
    b'vllm:%b{engine="0",model_name="m"} %b\n' % (name, value)
    for name, value in ((b"num_requests_running", b"63.0"), (b"num_requests_waiting", b"250.0"),
                        (b"kv_cache_usage_perc", b"0.99"), (b"prompt_tokens_total", b"7.0"),
                        (b"generation_tokens_total", b"7.0"))
)  # fmt: skip
WITHIN = 1.1
"""p99 of the time to the first byte, over that of a healthy run of the same questions"""


def only_metrics(answer: bytes) -> Answer:
    """Answer so to every question for metrics."""
    return lambda request: answer if request.startswith(b"GET /metrics") else None


ROUNDS = 3
FAULTS: dict[str, Callable[[bytes], Answer]] = {
    "stale": lambda real: only_metrics(text(real)),
    "absent": lambda _: only_metrics(text(b"not here", b"404 Not Found")),
    "garbage": lambda _: only_metrics(text(bytes(range(256)) * 40)),
    "lies": lambda _: only_metrics(text(LIE)),
}


async def play(stage: Stage, record: Record) -> None:
    """The same questions at the same times, healthy and with each fault; then one replica whose metrics vanish."""
    seconds = 6.0 if record.short else 25.0
    async with up_behind_relays(stage, 3) as (up, before):
        await _crowd(up, record, seconds)  # all learn
        times: dict[str, list[float]] = {"healthy": []} | {name: [] for name in FAULTS}
        for _ in range(1 if record.short else ROUNDS):
            for name, values in times.items():
                for relay in before:
                    relay.answer = FAULTS[name](b"vllm:num_requests_running 3.0\n") if name in FAULTS else None
                values.append(await _crowd(up, record, seconds))
        for relay in before:
            relay.answer = None
        await _excluded(up, before, record)
        await record.read(up.admin_url)
    record.figures |= {"ttftP99Seconds": dict(times)}
    record.nothing_failed()
    base = min(times.pop("healthy"))  # what else this machine does only adds
    for name, values in times.items():
        record.goal(f"{name}: p99 TTFT {min(values):.3f} s within 10 % of {base:.3f} s", min(values) <= WITHIN * base)


async def _crowd(up: Up, record: Record, seconds: float) -> float:
    """Replay; return the p99 of the times to the first byte."""
    mix = Mix(prompt_tokens=(200, 3000), answer_tokens=(5, 60), plain=0.1)
    async with Crowd(lambda: up.url, Questions(8, mix), rate=12) as crowd:
        await crowd.seconds(seconds)
        weights = [replica["weight"] for replica in (await page(up.admin_url))["replicas"]]
    record.figures.setdefault("weights", []).append(weights)
    return p99(record.take(crowd)) or 0.0


async def _excluded(up: Up, before: list[Relay], record: Record) -> None:
    """With `whenStale: exclude` a replica that went stale takes nothing new, and comes back."""
    up.edit(
        scheduling={
            "policy": "sal",
            "signals": {"intervalSeconds": 0.5, "staleAfterSeconds": 2.0, "whenStale": "exclude"},
        }
    )
    await up.said("edit applied")
    await until(up.admin_url, lambda status: all(p["signals"]["state"] == "fresh" for p in status["replicas"]))
    before[0].answer = FAULTS["absent"](b"")
    async with Crowd(lambda: up.url, Questions(9, Mix()), rate=12) as crowd:
        stale = before[0].address

        def idle(status: dict[str, list[dict[str, object]]]) -> bool:
            (page,) = (page for page in status["replicas"] if page["name"] == stale)
            return bool(page["suspended"]) and page["inFlight"] == 0

        await until(
            up.admin_url, lambda status: not idle(status) and sum(p["inFlight"] for p in status["replicas"]) > 3
        )
        await until(up.admin_url, idle)
        before[0].answer = None
        await until(up.admin_url, lambda status: all(p["inFlight"] for p in status["replicas"]))
    record.take(crowd)  # `until` would have raised
    record.goal("whenStale: exclude takes the stale one out, and back in", True)
