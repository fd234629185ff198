"""Text Generation Inference 3: its metrics, paths, container. Caller: the catalog.

Sources: TGI's `router/src/server.rs` and `backends/v3/src` of 3.3. It knows no KV blocks, prefix hits or pre-emptions.
"""

from halffull.core.values import Signals
from halffull.engines.arguments import Flag
from halffull.engines.base import Adapter, Container, Dialect, Limits, Path
from halffull.engines.exposition import Exposition, Series, ratio

RUNNING = Series((b"tgi_batch_current_size",))
WAITING = Series((b"tgi_queue_size",))
RESERVED_TOKENS = Series((b"tgi_batch_current_max_tokens",))
KV_TOKENS = Series((b"tgi_batch_max_total_tokens",))
PROMPT_TOKENS = Series((b"tgi_request_input_length_sum",))
GENERATION_TOKENS = Series((b"tgi_request_generated_tokens_sum",))


def signals(exposition: bytes | str) -> Signals:
    """Read one `/metrics` body; `kv_usage` is what TGI has reserved (prompt and `max_new_tokens`), not what it uses."""
    read = Exposition(exposition)
    capacity = read.value(KV_TOKENS) or None
    return Signals(
        running=read.value(RUNNING),
        waiting=read.value(WAITING),
        kv_usage=ratio(read.value(RESERVED_TOKENS), capacity),
        kv_tokens=capacity,
        prompt_tokens=read.value(PROMPT_TOKENS),
        generation_tokens=read.value(GENERATION_TOKENS),
    )


TGI = Adapter(
    type="tgi",
    signals=signals,
    paths={
        "/v1/chat/completions": Path(),
        "/v1/completions": Path(),
        "/generate": Path(Dialect.NATIVE, streams=False),
        "/generate_stream": Path(Dialect.NATIVE),
        "/tokenize": Path(streams=False),
        "/chat_tokenize": Path(streams=False),
    },
    admin_paths=frozenset(),
    # `--max-concurrent-requests` (128): beyond it TGI answers 429 at once
    defaults=Limits(max_sequences=128, max_batched_tokens=4096),
    sequence_flags=("--max-concurrent-requests",),
    batched_token_flags=("--max-batch-prefill-tokens",),
    container=Container(
        flags=(Flag(("--port", "-p"), "{port}"),),  # the model it serves has the name it was loaded by
        pre_stop_seconds=10,  # drains by itself on SIGTERM
    ),
)
