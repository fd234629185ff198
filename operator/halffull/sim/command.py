"""`halffull engine`: a simulated engine with vLLM's API, for trying halffull and for testing it without a GPU."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
from dataclasses import replace
from pathlib import Path

import uvloop
from aiohttp import web

from halffull.api import flags
from halffull.sim.profiles import PROFILES
from halffull.sim.server import BusyForm, EngineServer, Settings

LARGEST_CONTEXT = 131_072
KEEP_ALIVE_SECONDS = 5
"""idle connections are closed after this, as by vLLM's server: clients meet the race that goes with it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options; those that vLLM has carry vLLM's names."""
    listen = parser.add_argument_group("listening")
    listen.add_argument("--host", default=flags.everywhere(), help="address to listen on (%(default)s)")
    listen.add_argument(
        "--port", type=flags.port, default=8000, help="port to listen on; 0: any free one (%(default)s)"
    )
    listen.add_argument("--ready-file", type=Path, metavar="FILE", help="write {port, pid} here once it serves")

    listen.add_argument("--api-key", metavar="KEY", help="refuse requests to /v1 that do not carry it")
    listen.add_argument("--ssl-certfile", type=Path, metavar="FILE", help="certificate: serve https")
    listen.add_argument("--ssl-keyfile", type=Path, metavar="FILE", help="its key, where it is in a file of its own")

    model = parser.add_argument_group("model")
    model.add_argument("--model", default="simulated", metavar="NAME", help="model to pretend to run (%(default)s)")
    model.add_argument(
        "--served-model-name", nargs="+", metavar="NAME", help="names that requests may use (the model's own)"
    )
    model.add_argument(
        "--lora-modules", nargs="+", default=[], metavar="NAME[=PATH]", help="LoRA adapters to pretend to serve"
    )
    model.add_argument(
        "--max-loras", type=flags.count, default=1, metavar="N", help="adapters on the GPU at once (%(default)s)"
    )
    model.add_argument("--max-model-len", type=flags.count, metavar="TOKENS", help="longest prompt and answer together")

    engine = parser.add_argument_group("engine")
    engine.add_argument("--profile", choices=sorted(PROFILES), default="a100", help="GPU to model (%(default)s)")
    engine.add_argument("--max-num-seqs", type=flags.count, metavar="N", help="sequences that run at once")
    engine.add_argument(
        "--max-num-batched-tokens", type=flags.count, metavar="TOKENS", help="tokens that one step computes"
    )
    engine.add_argument("--kv-tokens", type=flags.count, metavar="TOKENS", help="size of the KV cache")
    engine.add_argument("--block-size", type=flags.count, default=16, metavar="TOKENS", help="KV block (%(default)s)")
    engine.add_argument(
        "--enable-prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="share KV of equal prompts",
    )
    engine.add_argument(
        "--kv-events-config",
        metavar="JSON",
        help="publish what the prefix cache holds, as vLLM does (extra `kv-events`)",
    )
    engine.add_argument(
        "--max-num-queued-reqs",
        type=flags.count,
        metavar="N",
        help="refuse requests while this many wait or run (no limit)",
    )
    engine.add_argument(
        "--busy-form",
        type=BusyForm,
        choices=list(BusyForm),
        default=BusyForm.RACE,
        help="how a full engine refuses a stream: status 503, an error event after 200, or whichever vLLM would",
    )
    engine.add_argument(
        "--shutdown-timeout",
        type=flags.not_negative,
        default=0.0,
        metavar="S",
        help="seconds to finish answers after SIGTERM (0)",
    )
    engine.add_argument(
        "--mute-on-sigterm", action="store_true", help="on SIGTERM fall silent, with connections open, until clients go"
    )

    clock = parser.add_argument_group("clock")
    clock.add_argument(
        "--speedup", type=flags.positive, default=1.0, metavar="X", help="run X times as fast as the GPU would"
    )
    clock.add_argument(
        "--slowdown", type=flags.positive, default=1.0, metavar="X", help="be a replica that is X times slower"
    )
    clock.add_argument(
        "--metrics-lag",
        type=flags.not_negative,
        default=0.3,
        metavar="S",
        help="age of gauges, seconds of the model (%(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; 2 where the options contradict each other."""
    try:
        settings = _settings(arguments)
    except ValueError as error:
        sys.stderr.write(f"halffull engine: {error}\n")
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, arguments))


def _settings(arguments: argparse.Namespace) -> Settings:
    """Return the engine's set-up. ValueError names the options that cannot be."""
    profile = PROFILES[arguments.profile]
    sequences = arguments.max_num_seqs or profile.max_sequences
    profile = replace(
        profile,
        max_sequences=sequences,
        max_batched_tokens=arguments.max_num_batched_tokens or max(profile.max_batched_tokens, sequences),
        kv_tokens=arguments.kv_tokens or profile.kv_tokens,
    )
    longest = arguments.max_model_len or min(LARGEST_CONTEXT, profile.kv_tokens)
    if longest > profile.kv_tokens:
        raise ValueError(f"--max-model-len {longest} does not fit in the KV cache of {profile.kv_tokens} tokens")
    if profile.max_batched_tokens < sequences:
        raise ValueError(f"--max-num-batched-tokens must be at least --max-num-seqs ({sequences})")
    return Settings(
        model=arguments.model,
        served_names=tuple(arguments.served_model_name or [arguments.model]),
        profile=profile,
        scale=arguments.slowdown / arguments.speedup,
        block_size=arguments.block_size,
        prefix_cache=arguments.enable_prefix_caching,
        max_model_len=longest,
        max_queued=arguments.max_num_queued_reqs,
        busy_form=arguments.busy_form,
        metrics_lag=arguments.metrics_lag,
        api_key=arguments.api_key,
        adapters=tuple(name.partition("=")[0] for name in arguments.lora_modules),
        adapter_slots=arguments.max_loras,
        kv_events=arguments.kv_events_config,
    )


async def _serve(settings: Settings, arguments: argparse.Namespace) -> int:
    """Listen, say so, serve until told to stop, stop as vLLM does."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        engine = EngineServer(settings)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"halffull engine: {error}\n")
        return 2
    runner = web.AppRunner(
        engine.app(),
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        shutdown_timeout=5,
    )
    await runner.setup()
    try:
        tls = _tls(arguments)
        site = web.TCPSite(runner, arguments.host, arguments.port, ssl_context=tls)
        await site.start()
        _announce(runner, arguments, "http" if tls is None else "https")
        await stop.wait()
        await _stop(engine, runner, site, arguments)
    except OSError as error:
        sys.stderr.write(f"halffull engine: {error}\n")
        return 1
    finally:
        await runner.cleanup()
        engine.close()
    return 0


def _announce(runner: web.AppRunner, arguments: argparse.Namespace, scheme: str) -> None:
    host, port = runner.addresses[0][:2]
    sys.stdout.write(f"halffull engine: serving {scheme}://{host}:{port}\n")
    sys.stdout.flush()
    if arguments.ready_file is not None:
        partial = arguments.ready_file.with_name(arguments.ready_file.name + ".partial")
        partial.write_text(json.dumps({"port": port, "pid": os.getpid()}))
        partial.replace(arguments.ready_file)


async def _stop(engine: EngineServer, runner: web.AppRunner, site: web.TCPSite, arguments: argparse.Namespace) -> None:
    """Be mute until all clients have gone; or finish what `--shutdown-timeout` allows, still listening, and abort the rest."""
    if arguments.mute_on_sigterm:
        engine.pace.freeze()
        await _close(runner, site)
        await engine.pace.idle.wait()
        return
    engine.drain()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(engine.pace.idle.wait(), arguments.shutdown_timeout)
    engine.pace.abort()
    await _close(runner, site)


async def _close(runner: web.AppRunner, site: web.TCPSite) -> None:
    """Close the listener and the idle connections; others close after their answer."""
    await site.stop()
    if runner.server is not None:
        runner.server.pre_shutdown()


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """Return the server's TLS context, None for http. OSError if a file cannot be used."""
    if arguments.ssl_certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(arguments.ssl_certfile, arguments.ssl_keyfile)
    except OSError as error:
        raise OSError(f"--ssl-certfile {arguments.ssl_certfile} with its key cannot be used: {error}") from error
    return context
