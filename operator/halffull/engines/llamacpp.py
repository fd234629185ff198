"""llama.cpp's server: its metrics (with `--metrics`), paths, container. Caller: the catalog.

Source: llama.cpp's `tools/server/README.md`. It tells neither the size of its KV cache nor prefix hits in metrics.
"""

from halffull.core.values import Signals
from halffull.engines.arguments import Flag
from halffull.engines.base import Adapter, Container, Dialect, Limits, Path
from halffull.engines.exposition import Exposition, Series

RUNNING = Series((b"llamacpp:requests_processing",))
WAITING = Series((b"llamacpp:requests_deferred",))
KV_USAGE = Series((b"llamacpp:kv_cache_usage_ratio",))
"""removed in 2025"""
PROMPT_TOKENS = Series((b"llamacpp:prompt_tokens_total",))
GENERATION_TOKENS = Series((b"llamacpp:tokens_predicted_total",))

PLAIN = Path(streams=False)


def signals(exposition: bytes | str) -> Signals:
    """Read one `/metrics` body."""
    read = Exposition(exposition)
    return Signals(
        running=read.value(RUNNING),
        waiting=read.value(WAITING),
        kv_usage=read.fraction(KV_USAGE),
        prompt_tokens=read.value(PROMPT_TOKENS),
        generation_tokens=read.value(GENERATION_TOKENS),
    )


LLAMACPP = Adapter(
    type="llamacpp",
    signals=signals,
    paths={
        **dict.fromkeys(
            ("/v1/chat/completions", "/chat/completions", "/v1/completions", "/completions", "/completion", "/infill"),
            Path(),
        ),
        "/v1/responses": Path(Dialect.RESPONSES),
        "/v1/messages": Path(Dialect.ANTHROPIC),
        "/v1/messages/count_tokens": Path(Dialect.ANTHROPIC, streams=False),
        **dict.fromkeys(
            (
                "/v1/embeddings",
                "/embeddings",
                "/embedding",
                "/v1/rerank",
                "/v1/reranking",
                "/rerank",
                "/reranking",
                "/tokenize",
                "/detokenize",
                "/apply-template",
            ),
            PLAIN,
        ),
    },
    admin_paths=frozenset({"/slots", "/props", "/lora-adapters", "/models"}),
    defaults=Limits(max_sequences=4, max_batched_tokens=2048),
    sequence_flags=("--parallel", "-np"),
    batched_token_flags=("--batch-size", "-b"),
    container=Container(
        flags=(
            Flag(("--host",), "0.0.0.0"),
            Flag(("--port",), "{port}"),
            Flag(("--alias", "-a"), "{model}"),
            Flag(("--metrics",)),
        ),
        pre_stop_seconds=60,
    ),
)
