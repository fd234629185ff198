"""vLLM: names of its metrics since 0.9, its paths, its container. Caller: the catalog; `simulated` shares the wire.

Sources: vLLM's `v1/metrics/loggers.py` and `entrypoints/**/api_router.py` of 0.9 to 0.33, and recorded answers of 0.32.
"""

from typing import Any

from halffull.core.values import Signals
from halffull.engines.arguments import Flag
from halffull.engines.base import SEAMLESS, STORED, Adapter, Container, Continuing, Dialect, Limits, Path
from halffull.engines.exposition import Exposition, Series, number, product

RUNNING = Series((b"vllm:num_requests_running",))
WAITING = Series((b"vllm:num_requests_waiting",))
KV_USAGE = Series((b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"), across="mean")
PREFIX_QUERIES = Series((b"vllm:prefix_cache_queries_total", b"vllm:gpu_prefix_cache_queries_total"))
PREFIX_HITS = Series((b"vllm:prefix_cache_hits_total", b"vllm:gpu_prefix_cache_hits_total"))
PREEMPTIONS = Series((b"vllm:num_preemptions_total",))
PROMPT_TOKENS = Series((b"vllm:prompt_tokens_total",))
GENERATION_TOKENS = Series((b"vllm:generation_tokens_total",))
TOKEN_SECONDS = Series((b"vllm:inter_token_latency_seconds_sum", b"vllm:time_per_output_token_seconds_sum"))

CHAT = Path(continuing=Continuing("messages", SEAMLESS | {"messages", "max_completion_tokens"}, usage=True))
COMPLETIONS = Path(continuing=Continuing("prompt", SEAMLESS | {"prompt"}, usage=True, limit=16))
OPENAI = Path()
PLAIN = Path(streams=False)
ANTHROPIC = Path(Dialect.ANTHROPIC)
RESPONSES = Path(Dialect.RESPONSES)
STORED_RESPONSE = Path(Dialect.RESPONSES, resendable=False)

PATHS = {
    "/v1/chat/completions": CHAT,
    "/v1/chat/completions/batch": PLAIN,
    "/v1/completions": COMPLETIONS,
    "/v1/responses": RESPONSES,
    "/v1/messages": ANTHROPIC,
    "/v1/messages/count_tokens": Path(Dialect.ANTHROPIC, streams=False),
    "/v1/audio/transcriptions": OPENAI,
    "/v1/audio/translations": OPENAI,
    "/inference/v1/generate": OPENAI,
    **dict.fromkeys(
        (
            "/v1/embeddings",
            "/v2/embed",
            "/pooling",
            "/classify",
            "/score",
            "/v1/score",
            "/rerank",
            "/v1/rerank",
            "/v2/rerank",
            "/tokenize",
            "/detokenize",
            "/v1/chat/completions/render",
            "/v1/completions/render",
        ),
        PLAIN,
    ),
}

ADMIN_PATHS = frozenset(
    {
        "/sleep",
        "/wake_up",
        "/is_sleeping",
        "/pause",
        "/resume",
        "/is_paused",
        "/abort_requests",
        "/reset_prefix_cache",
        "/reset_mm_cache",
        "/reset_encoder_cache",
        "/server_info",
        "/collective_rpc",
        "/scale_elastic_ep",
        "/is_scaling_elastic_ep",
        "/start_profile",
        "/stop_profile",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/kv_event_sources",
    }
)


def signals(exposition: bytes | str) -> Signals:
    """Read one `/metrics` body. The order of look-ups is the order in which vLLM prints."""
    read = Exposition(exposition)
    return Signals(
        running=read.value(RUNNING),
        waiting=read.value(WAITING),
        kv_usage=read.fraction(KV_USAGE),
        prefix_queries=read.value(PREFIX_QUERIES),
        prefix_hits=read.value(PREFIX_HITS),
        preemptions=read.value(PREEMPTIONS),
        prompt_tokens=read.value(PROMPT_TOKENS),
        generation_tokens=read.value(GENERATION_TOKENS),
        token_seconds=read.value(TOKEN_SECONDS),
        kv_tokens=_kv_tokens(read),
        **_adapters(read),
    )


def _adapters(read: Exposition) -> dict[str, Any]:
    """Return the LoRA adapters of requests that run or wait, and how many fit; nothing where the engine has LoRA off."""
    labels = read.newest(b"vllm:lora_requests_info")
    names = b",".join(labels.get(name, b"") for name in (b"running_lora_adapters", b"waiting_lora_adapters"))
    slots = number(labels.get(b"max_lora", b""))
    return {
        "adapters": tuple(sorted({name.decode(errors="replace") for name in names.split(b",") if name})),
        "adapter_slots": int(slots) if slots else None,
    }


def _kv_tokens(read: Exposition) -> float | None:
    """Return the KV cache's size in tokens over all data-parallel ranks.

    Newer versions say it (`kv_cache_size_tokens`; right for models with several kinds of cache), older ones give blocks
    and their size. A label may be the text `None`.
    """
    ranks = read.labels(b"vllm:cache_config_info")
    sizes = [_size(labels) for labels in ranks]
    known = [size for size in sizes if size is not None]
    return product(sum(known), 1) if len(known) == len(ranks) else None


def _size(labels: dict[bytes, bytes]) -> float | None:
    tokens, blocks, block = (
        number(labels.get(name, b"")) for name in (b"kv_cache_size_tokens", b"num_gpu_blocks", b"block_size")
    )
    return tokens or product(blocks, block)


VLLM = Adapter(
    type="vllm",
    signals=signals,
    paths=PATHS,
    prefixes={STORED: STORED_RESPONSE},
    admin_paths=ADMIN_PATHS,
    ranks=True,
    kv_events=True,
    # what the API server sets on a GPU of less than 70 GB; larger ones take more, and say so by their arguments only
    defaults=Limits(max_sequences=256, max_batched_tokens=2048),
    sequence_flags=("--max-num-seqs", "--max-num-active-seqs"),
    batched_token_flags=("--max-num-batched-tokens",),
    container=Container(
        flags=(
            Flag(("--port",), "{port}"),
            Flag(("--model", "--config"), "{model}", unless_positional=True),
            Flag(("--served-model-name",), "{model}"),
        ),
        pre_stop_seconds=60,
    ),
)
