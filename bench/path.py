"""What the router's own code costs per request and per streamed chunk: the real data path on transports that swallow bytes.

No kernel and no other process takes part, so small differences show even on a busy machine; what sockets cost is `proxy`'s
question. `--profile` prints where the time goes.
"""

import argparse
import cProfile
import json
import pstats
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from halffull.api.scheduling import Scheduling
from halffull.core.books import Replica
from halffull.core.dispatch import Dispatcher
from halffull.core.limits import Limits
from halffull.engines.catalog import ENGINES
from halffull.router import scheduler
from halffull.router.http.client import Client
from halffull.router.http.upstream import Pool, Upstream
from halffull.router.proxy import Proxy, Settings

ROUNDS = 7
REPLICAS = 16
CHUNKS = 64
CHAT = '{"model":"m","messages":[{"role":"user","content":"%s"}],"stream":%s,"max_tokens":64}'
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"hello world"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}'
)
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\ncontent-length: "
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}\n\n'
)


USAGE = b',"usage":{"prompt_tokens":512,"total_tokens":576,"completion_tokens":64}}\n\n'


class Sink:
    """A transport that swallows what is written."""

    def write(self, _data: bytes) -> None:
        """Swallow."""

    def writelines(self, _data: list[bytes]) -> None:
        """Swallow."""

    def is_closing(self) -> bool:
        """It never closes."""
        return False

    def close(self) -> None:
        """Nothing is to be closed."""

    def get_write_buffer_size(self) -> int:
        """All is gone."""
        return 0

    abort = pause_reading = resume_reading = close


class Bench:
    """A proxy with one client connection and one idle connection to each replica."""

    def __init__(self, policy: str) -> None:
        made = scheduler.build(Scheduling(policy=policy))
        rng = random.Random(1)
        dispatcher = Dispatcher(made.policy, made.ordering, made.gate, rng, Limits())
        self.proxy = Proxy(dispatcher, ENGINES["vllm"], Settings(model="m"), time.monotonic, "hf-")
        self.client = Client(self.proxy, time.monotonic)
        self.client.connection_made(Sink())  # type: ignore[arg-type]
        self.upstreams: dict[str, Upstream] = {}
        for number in range(REPLICAS):
            replica = Replica(f"10.0.0.{number}:8000", f"10.0.0.{number}", 8000)
            self.proxy.add(replica)
            self.upstreams[replica.name] = self._connect(replica)

    def _connect(self, replica: Replica) -> Upstream:
        pool: Pool = self.proxy.engines._pools[replica]  # noqa: SLF001  # a connection that no socket made
        upstream = Upstream(pool, time.monotonic)
        upstream.connection_made(Sink())  # type: ignore[arg-type]
        pool.put(upstream)
        return upstream

    def exchange(self, request: bytes, pieces: list[bytes]) -> None:
        """Take one request in and relay its answer."""
        for upstream in self.upstreams.values():
            upstream.idle_since = time.monotonic()
        self.client.data_received(request)
        upstream = self.upstreams[self.proxy.telemetry.decisions[-1].replica]
        for piece in pieces:
            upstream.data_received(piece)


def framed(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def request(text_bytes: int, *, stream: bool) -> bytes:
    body = (CHAT % ("lorem ipsum " * (text_bytes // 12), "true" if stream else "false")).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:8100\r\nuser-agent: bench\r\naccept: */*\r\n"
        b"authorization: Bearer sk-0123456789\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )


def cases(bench: Bench) -> dict[str, tuple[Callable[[], None], int]]:
    """Return what is repeated, and by how much its time is divided."""
    plain = [PLAIN + b"%d\r\n\r\n%b" % (len(ANSWER), ANSWER)]
    small, large, streamed = request(2000, stream=False), request(65000, stream=False), request(2000, stream=True)
    ended = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    stream = [STREAM, *[framed(EVENT)] * CHUNKS, ended]
    counted = [STREAM, *[framed(EVENT[:-3] + USAGE)] * CHUNKS, ended]
    burst = [STREAM, *[framed(EVENT * 20)] * CHUNKS, ended]
    return {
        "request, 2 kB": (lambda: bench.exchange(small, plain), 1),
        "request, 64 kB": (lambda: bench.exchange(large, plain), 1),
        "chunk of one token": (lambda: bench.exchange(streamed, stream), CHUNKS),
        "chunk with usage": (lambda: bench.exchange(streamed, counted), CHUNKS),
        "chunk of 20 tokens": (lambda: bench.exchange(streamed, burst), CHUNKS),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", default="sal")
    parser.add_argument("--profile", action="store_true", help="print where the time of the first cases goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    bench, figures = Bench(arguments.policy), {}
    print("microseconds of CPU in the router's own code, median of rounds (range)")
    for name, (repeat, parts) in cases(bench).items():
        costs = sorted(one_round(repeat) / parts * 1e6 for _ in range(ROUNDS))
        figures[name] = costs
        print(f"  {name:<20}{median(costs):>8.1f} ({costs[0]:.1f} to {costs[-1]:.1f})", flush=True)
        if arguments.profile:
            with cProfile.Profile(time.process_time) as profile:
                one_round(repeat)
            pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(75)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def one_round(repeat: Callable[[], None], seconds: float = 0.3) -> float:
    """Return seconds of CPU per repetition."""
    done, start = 0, time.process_time()
    while (used := time.process_time() - start) < seconds:
        for _ in range(20):
            repeat()
        done += 20
    return used / done
