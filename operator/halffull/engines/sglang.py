"""SGLang: names of its metrics (with `--enable-metrics`) since 0.4.6, its paths, its container. Caller: the catalog.

Sources: SGLang's `observability/metrics_collector.py` and `entrypoints/http_server.py` of 0.4.6 to 0.5.23.
"""

from halffull.core.values import Signals
from halffull.engines.arguments import Flag
from halffull.engines.base import SEAMLESS, STORED, Adapter, Container, Continuing, Dialect, Limits, Path
from halffull.engines.exposition import Exposition, Series, number, product, total

RANK = b"dp_rank"
TOTAL = ((b"priority", b""),)
"""with priority scheduling the series with the empty label is the total, those per priority are extra"""

RUNNING = Series((b"sglang:num_running_reqs",), rank=RANK, only=TOTAL)
WAITING = Series((b"sglang:num_queue_reqs",), rank=RANK, only=TOTAL)
WAITING_GRAMMAR = Series((b"sglang:num_grammar_queue_reqs",), rank=RANK, only=TOTAL)
KV_USAGE = Series((b"sglang:token_usage",), across="mean", rank=RANK, only=TOTAL)
KV_TOKENS = Series((b"sglang:max_total_num_tokens",), rank=RANK)
PAGES = Series((b"sglang:num_pages",), rank=RANK)
PAGE_TOKENS = Series((b"sglang:page_size",), across="mean", rank=RANK)
PREEMPTIONS = Series((b"sglang:num_retracted_requests_total",), rank=RANK, only=TOTAL)

# counted in every forward pass; the older counters move only when a request ends
COMPUTED = Series((b"sglang:realtime_tokens_total",), rank=RANK, only=(*TOTAL, (b"mode", b"prefill_compute")))
REUSED = Series((b"sglang:realtime_tokens_total",), rank=RANK, only=(*TOTAL, (b"mode", b"prefill_cache")))
DECODED = Series((b"sglang:realtime_tokens_total",), rank=RANK, only=(*TOTAL, (b"mode", b"decode")))
PROMPT_TOKENS = Series((b"sglang:prompt_tokens_total",), rank=RANK)
GENERATION_TOKENS = Series((b"sglang:generation_tokens_total",), rank=RANK)
CACHED_TOKENS = Series((b"sglang:cached_tokens_total",), rank=RANK, only=((b"cache_source", b"total"),))
TOKEN_SECONDS = Series((b"sglang:inter_token_latency_seconds_sum",), rank=RANK)

# SGLang puts a last assistant message behind the rendered prompt as it is
CHAT = Path(continuing=Continuing("messages", SEAMLESS | {"messages", "max_completion_tokens"}, usage=True))
COMPLETIONS = Path(continuing=Continuing("prompt", SEAMLESS | {"prompt"}, usage=True, limit=16))
PLAIN = Path(streams=False)
NATIVE = Path(Dialect.NATIVE)


def signals(exposition: bytes | str) -> Signals:
    """Read one `/metrics` body."""
    read = Exposition(exposition)
    computed, reused = read.value(COMPUTED), read.value(REUSED)
    if computed is not None:
        prompt, hits, generated = total(computed, reused), reused, read.value(DECODED)
    else:
        prompt, hits = read.value(PROMPT_TOKENS), read.value(CACHED_TOKENS)
        generated = read.value(GENERATION_TOKENS)
    return Signals(
        running=read.value(RUNNING),
        waiting=total(read.value(WAITING), read.value(WAITING_GRAMMAR)),
        kv_usage=read.fraction(KV_USAGE),
        kv_tokens=_kv_tokens(read),
        prompt_tokens=prompt,
        generation_tokens=generated,
        preemptions=read.value(PREEMPTIONS),
        prefix_queries=prompt if hits is not None else None,
        prefix_hits=hits,
        token_seconds=read.value(TOKEN_SECONDS),
    )


def _kv_tokens(read: Exposition) -> float | None:
    """Return the pool's size; before 0.5.11 or so it stood in labels only."""
    size = read.value(KV_TOKENS) or product(read.value(PAGES), read.value(PAGE_TOKENS))
    if size:
        return size
    ranks = read.labels(b"sglang:cache_config_info")
    labels = ranks[0] if ranks else {}
    return product(number(labels.get(b"num_pages", b"")), number(labels.get(b"page_size", b"")))


SGLANG = Adapter(
    type="sglang",
    signals=signals,
    paths={
        "/v1/chat/completions": CHAT,
        "/v1/completions": COMPLETIONS,
        "/v1/responses": Path(Dialect.RESPONSES),
        "/v1/messages": Path(Dialect.ANTHROPIC),
        "/v1/messages/count_tokens": Path(Dialect.ANTHROPIC, streams=False),
        "/v1/audio/transcriptions": Path(),
        "/generate": NATIVE,
        **dict.fromkeys(
            (
                "/v1/embeddings",
                "/v1/classify",
                "/v1/score",
                "/v1/rerank",
                "/v1/tokenize",
                "/v1/detokenize",
                "/tokenize",
                "/detokenize",
                "/encode",
                "/classify",
            ),
            PLAIN,
        ),
    },
    prefixes={STORED: Path(Dialect.RESPONSES, resendable=False)},
    admin_paths=frozenset(
        {
            "/flush_cache",
            "/abort_request",
            "/pause_generation",
            "/continue_generation",
            "/release_memory_occupation",
            "/resume_memory_occupation",
            "/load_lora_adapter",
            "/unload_lora_adapter",
            "/set_internal_state",
            "/start_profile",
            "/stop_profile",
            "/update_weights_from_disk",
            "/update_weights_from_tensor",
            "/update_weights_from_distributed",
            "/init_weights_update_group",
            "/get_weights_by_name",
            "/configure_logging",
            "/open_session",
            "/close_session",
            "/slow_down",
            "/server_info",
            "/get_server_info",
            "/v1/loads",
            "/get_load",
        }
    ),
    # it runs what its memory allows; small enough that the router's queue, which is ordered, holds the rest
    defaults=Limits(max_sequences=256, max_batched_tokens=8192),
    sequence_flags=("--max-running-requests",),
    batched_token_flags=("--chunked-prefill-size",),
    container=Container(
        flags=(
            Flag(("--model-path", "--model", "--config"), "{model}"),
            Flag(("--host",), "0.0.0.0"),
            Flag(("--port",), "{port}"),
            Flag(("--served-model-name",), "{model}"),
            Flag(("--enable-metrics",)),
        ),
        command=("python3", "-m", "sglang.launch_server"),
        pre_stop_seconds=10,  # drains by itself on SIGTERM
    ),
)
