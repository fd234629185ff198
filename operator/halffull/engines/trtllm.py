"""TensorRT-LLM's `trtllm-serve`: its metrics (with `return_perf_metrics: true`), paths, container. Caller: the catalog.

Sources: TensorRT-LLM's `metrics/collector.py` and `serve/openai_server.py` of 1.2. Its gauges move only when a request
ends. `/metrics` is another thing there (JSON that reading consumes): never scrape it.
"""

from halffull.core.values import Signals
from halffull.engines.arguments import Flag
from halffull.engines.base import STORED, Adapter, Container, Dialect, Limits, Path
from halffull.engines.exposition import Exposition, Series, product, ratio

RUNNING = Series((b"trtllm_num_requests_running",))
WAITING = Series((b"trtllm_num_requests_waiting",))
KV_USAGE = Series((b"trtllm_kv_cache_utilization",), across="mean")
USED_BLOCKS = Series((b"trtllm_kv_cache_used_blocks",))
BLOCKS = Series((b"trtllm_kv_cache_max_blocks",))
BLOCK_TOKENS = Series((b"trtllm_kv_cache_tokens_per_block",), across="mean")
PROMPT_TOKENS = Series((b"trtllm_prompt_tokens_total",))
GENERATION_TOKENS = Series((b"trtllm_generation_tokens_total",))
CACHED_TOKENS = Series((b"trtllm_prompt_cached_tokens_total",))


def signals(exposition: bytes | str) -> Signals:
    """Read one `/prometheus/metrics` body."""
    read = Exposition(exposition)
    blocks = read.value(BLOCKS)
    usage = read.fraction(KV_USAGE)
    prompt, hits = read.value(PROMPT_TOKENS), read.value(CACHED_TOKENS)
    return Signals(
        running=read.value(RUNNING),
        waiting=read.value(WAITING),
        kv_usage=usage if usage is not None else ratio(read.value(USED_BLOCKS), blocks),
        kv_tokens=product(blocks, read.value(BLOCK_TOKENS)),
        prompt_tokens=prompt,
        generation_tokens=read.value(GENERATION_TOKENS),
        prefix_queries=prompt if hits is not None else None,
        prefix_hits=hits,
    )


TRTLLM = Adapter(
    type="trtllm",
    signals=signals,
    metrics_path="/prometheus/metrics",
    paths={
        "/v1/chat/completions": Path(),
        "/v1/completions": Path(),
        "/v1/responses": Path(Dialect.RESPONSES),
    },
    prefixes={STORED: Path(Dialect.RESPONSES, resendable=False)},
    admin_paths=frozenset(
        {
            "/release_memory",
            "/resume_memory",
            "/update_weights",
            "/kv_cache_events",
            "/v1/kv_cache_hints",
            "/perf_metrics",
            "/server_info",
        }
    ),
    # it runs what its memory allows; small enough that the router's queue, which is ordered, holds the rest
    defaults=Limits(max_sequences=256, max_batched_tokens=8192),
    sequence_flags=("--max_batch_size",),
    batched_token_flags=("--max_num_tokens",),
    container=Container(
        command=("trtllm-serve",),
        flags=(
            Flag(("--host",), "0.0.0.0"),
            Flag(("--port",), "{port}"),
            Flag(("--served_model_name",), "{model}"),
        ),
        pre_stop_seconds=60,  # what SIGTERM does to running requests is not known: taken for the worst
    ),
)
