"""`halffull load`: replays a trace against an OpenAI endpoint and reports what its clients would have seen."""

import argparse
import asyncio
import json
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from halffull.api import flags
from halffull.local import workload
from halffull.local.client import Client, Outcome, Target
from halffull.local.prompts import Prompts
from halffull.local.replay import Replay
from halffull.local.report import Slo, lines, report
from halffull.router.loop import Loop
from halffull.sim.trace import RECORDED, Call, TraceError, read_trace, recorded_lengths

SYNTHETIC = "synthetic"
PROGRESS_S = 1.0
PROGRESS_PLAIN_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    where = parser.add_argument_group("where to")
    where.add_argument("--url", type=_url, default="http://127.0.0.1:8000", help="the endpoint (default: %(default)s)")
    where.add_argument("--model", required=True, help="model name of the requests")
    where.add_argument(
        "--api", choices=("chat", "completions"), default="chat", help="which of OpenAI's APIs (default: %(default)s)"
    )
    where.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="sent with every request")
    what = parser.add_argument_group("what")
    what.add_argument(
        "--trace",
        default="conversation",
        metavar="FILE",
        help="Azure's CSV, Mooncake's JSON lines, or one of: conversation, code (lengths recorded at Azure in 2023 that "
        "ship with halffull), synthetic (default: %(default)s)",
    )
    what.add_argument(
        "--prompt-tokens", type=flags.positive, default=500, help="median of synthetic prompts (default: %(default)s)"
    )
    what.add_argument(
        "--output-tokens", type=flags.positive, default=100, help="median of synthetic answers (default: %(default)s)"
    )
    what.add_argument(
        "--spread",
        type=flags.not_negative,
        default=0.8,
        help="sigma of the lognormal synthetic lengths (default: %(default)s)",
    )
    what.add_argument(
        "--stream-share",
        type=flags.share,
        default=1.0,
        help="share of requests that stream, 0 to 1 (default: %(default)s)",
    )
    what.add_argument("--at-most", action="store_true", help="let the model end its answer early (no ignore_eos)")
    when = parser.add_argument_group("when")
    tempo = when.add_mutually_exclusive_group()
    tempo.add_argument(
        "--rate", type=flags.positive, help="requests a second on average (default: 1, or the trace's own)"
    )
    tempo.add_argument("--speedup", type=flags.positive, help="divide the trace's gaps between arrivals by this")
    when.add_argument("--poisson", action="store_true", help="independent arrivals instead of the trace's pattern")
    when.add_argument("--requests", type=flags.count, metavar="N", help="send the first N")
    when.add_argument("--seconds", type=flags.positive, help="send what arrives in this time")
    when.add_argument(
        "--timeout", type=flags.positive, default=600.0, help="seconds for one whole answer (default: %(default)s)"
    )
    when.add_argument(
        "--seed", type=int, default=1, help="of texts, synthetic lengths and Poisson arrivals (default: %(default)s)"
    )
    figures = parser.add_argument_group("figures")
    figures.add_argument(
        "--slo-ttft",
        type=flags.positive,
        default=2.0,
        help="objective: seconds to the first token (default: %(default)s)",
    )
    figures.add_argument(
        "--slo-tpot",
        type=flags.positive,
        default=0.1,
        help="objective: seconds per further token (default: %(default)s)",
    )
    figures.add_argument("--json", type=flags.new_file, metavar="FILE", help="write the figures here too")


def run(arguments: argparse.Namespace) -> int:
    """Replay; 0 if no request failed, 1 if one did, 2 if the trace or an option is wrong."""
    try:
        calls = plan(arguments)
        headers = dict(_header(text) for text in arguments.header)
    except (TraceError, ValueError) as error:
        print(f"halffull load: {error}", file=sys.stderr)
        return 2
    target = Target(arguments.url, arguments.model, arguments.api, arguments.timeout, not arguments.at_most, headers)
    allow_many_connections()
    with asyncio.Runner(loop_factory=Loop) as runner:
        figures = runner.run(_replay(calls, target, arguments))
    print("\n".join(lines(figures)))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if figures["requests"]["failed"] else 0


def plan(arguments: argparse.Namespace) -> Iterator[Call]:
    """The calls that the options ask for, with their arrivals; raises TraceError or ValueError."""
    rng = Random(arguments.seed)
    trace = _trace(arguments, rng)
    recorded = workload.has_arrivals(trace) and not arguments.poisson
    if arguments.speedup and not recorded:
        raise ValueError("--speedup needs the arrivals of a trace: use --rate")
    if not recorded:
        if not (arguments.requests or arguments.seconds):
            arguments.requests = len(trace)
        calls = workload.poisson(workload.drawn(trace, rng), arguments.rate or 1.0, rng)
    elif arguments.rate:
        calls = workload.at_rate(trace, arguments.rate)
    else:
        calls = workload.faster(trace, arguments.speedup or 1.0)
    return workload.limited(calls, arguments.requests, arguments.seconds)


def allow_many_connections() -> None:
    """Raise the limit on open files to what the system allows: every request in flight has its own connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _trace(arguments: argparse.Namespace, rng: Random) -> list[Call]:
    if arguments.trace in RECORDED:
        return recorded_lengths(arguments.trace)
    if arguments.trace == SYNTHETIC:
        count = arguments.requests or 10_000
        return workload.lognormal_lengths(
            count, arguments.prompt_tokens, arguments.output_tokens, arguments.spread, rng
        )
    return read_trace(Path(arguments.trace))


@dataclass
class _Progress:
    """Prints how far the replay is, on one line of a terminal or now and then."""

    outcomes: list[Outcome] = field(default_factory=list)
    failed: int = 0

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.failed += outcome.error is not None

    async def show(self, replay: Replay) -> None:
        terminal = sys.stderr.isatty()
        now = asyncio.get_running_loop().time
        start = now()
        while True:
            await asyncio.sleep(PROGRESS_S if terminal else PROGRESS_PLAIN_S)
            text = (
                f"{now() - start:5.0f} s: {replay.sent} sent, {replay.in_flight} in flight, "
                f"{len(self.outcomes) - self.failed} completed, {self.failed} failed"
            )
            print(f"\r{text}\x1b[K" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)


async def _replay(calls: Iterator[Call], target: Target, arguments: argparse.Namespace) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    progress = _Progress()
    start = loop.time()
    async with Client(target, Prompts(arguments.seed)) as client:
        replay = Replay(client, stream_share=arguments.stream_share, rng=Random(arguments.seed), ended=progress.ended)
        replaying = asyncio.create_task(replay.run(calls))
        _stop_on_signals(loop, replay, replaying)
        shown = asyncio.create_task(progress.show(replay))
        try:
            await replaying
        except asyncio.CancelledError:
            print("\nstopped with answers open", file=sys.stderr)
        finally:
            shown.cancel()
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    slo = Slo(arguments.slo_ttft, arguments.slo_tpot)
    return report(progress.outcomes, slo, loop.time() - start)


def _stop_on_signals(loop: asyncio.AbstractEventLoop, replay: Replay, replaying: asyncio.Task[None]) -> None:
    """The first Ctrl-C or SIGTERM ends the sending, the second one drops the answers that are open."""
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        replay.stop()
        if asked > 1:
            replaying.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"--header {text!r}: write NAME:VALUE")
    return name.strip(), value.strip()


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: http://... or https://...")
    return text
