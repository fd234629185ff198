"""LMDeploy: its metrics, paths, container. Caller: the catalog.

Sources: LMDeploy's `metrics/loggers.py` and `serve/openai/api_server.py` of 0.18. Its gauges are up to 10 s old; the
size of its KV cache is not told.
"""

from halffull.core.values import Signals
from halffull.engines.arguments import Flag
from halffull.engines.base import STORED, Adapter, Container, Dialect, Limits, Path
from halffull.engines.exposition import Exposition, Series, total

RUNNING = Series((b"lmdeploy:num_requests_running",))
WAITING = Series((b"lmdeploy:num_requests_waiting",))
WAITING_API = Series((b"lmdeploy:num_api_requests_waiting",))
"""requests before the engine, for want of a handle"""
KV_USAGE = Series((b"lmdeploy:gpu_cache_usage_perc",), across="mean")
PROMPT_TOKENS = Series((b"lmdeploy:prompt_tokens_total",))
GENERATION_TOKENS = Series((b"lmdeploy:generation_tokens_total",))
CACHED_TOKENS = Series((b"lmdeploy:cached_tokens_total",))


def signals(exposition: bytes | str) -> Signals:
    """Read one `/metrics` body."""
    read = Exposition(exposition)
    prompt, hits = read.value(PROMPT_TOKENS), read.value(CACHED_TOKENS)
    return Signals(
        running=read.value(RUNNING),
        waiting=total(read.value(WAITING), read.value(WAITING_API)),
        kv_usage=read.fraction(KV_USAGE),
        prompt_tokens=prompt,
        generation_tokens=read.value(GENERATION_TOKENS),
        prefix_queries=prompt if hits is not None else None,
        prefix_hits=hits,
    )


LMDEPLOY = Adapter(
    type="lmdeploy",
    signals=signals,
    paths={
        "/v1/chat/completions": Path(),
        "/v1/completions": Path(),
        "/v1/responses": Path(Dialect.RESPONSES),
        "/v1/messages": Path(Dialect.ANTHROPIC),
        "/v1/messages/count_tokens": Path(Dialect.ANTHROPIC, streams=False),
        "/generate": Path(Dialect.NATIVE),
        "/v1/encode": Path(streams=False),
        "/pooling": Path(streams=False),
    },
    prefixes={STORED: Path(Dialect.RESPONSES, resendable=False)},
    admin_paths=frozenset(
        {
            "/sleep",
            "/wakeup",
            "/is_sleeping",
            "/abort_request",
            "/terminate",
            "/update_weights",
            "/distserve",
        }
    ),
    defaults=Limits(max_sequences=128, max_batched_tokens=8192),
    sequence_flags=("--max-batch-size",),
    batched_token_flags=("--max-prefill-token-num",),
    container=Container(
        command=("lmdeploy", "serve", "api_server"),
        flags=(Flag(("--server-port",), "{port}"), Flag(("--model-name",), "{model}")),
        pre_stop_seconds=60,
    ),
)
