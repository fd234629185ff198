"""A simulated engine's metrics as vLLM 0.32 exposes them: the same families, names and labels.

Called by the server for `GET /metrics`. Families that a model without a GPU has no value for are there and zero.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.registry import Collector

from halffull.sim.engine_model import EngineModel
from halffull.sim.metrics import EngineMetrics, Histogram

Values = Sequence[tuple[Mapping[str, str], float]]
_FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
_PROMPT_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_CACHE_SOURCES = ("device", "host", "p2p", "disk", "external_unspecified")


class EngineCollector(Collector):
    """Turns the metrics of one engine into prometheus-client's families when it is scraped."""

    def __init__(
        self,
        metrics: EngineMetrics,
        model: EngineModel,
        labels: Mapping[str, str],
        cache_config: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._model = model
        self._labels = dict(labels)
        self._cache_config = dict(cache_config)
        self._clock = clock
        self._created = time.time()

    def collect(self) -> Iterable[Metric]:
        """Yield all families, in vLLM's order."""
        yield from self._unmeasured()
        yield from self._gauges()
        yield from self._counters()
        yield from self._histograms()
        yield self._gauge("cache_config_info", "Configuration of the KV cache.", [(self._cache_config, 1)])

    def _unmeasured(self) -> Iterable[Metric]:
        for what in ("flops", "read_bytes", "write_bytes"):
            yield self._counter(f"estimated_{what}_per_gpu", "Not modelled.", [({}, 0)])

    def _gauges(self) -> Iterable[Metric]:
        now = self._metrics.gauges(self._clock())
        yield self._gauge("num_requests_running", "Requests in the running batch.", [({}, now.running)])
        yield self._gauge("num_requests_waiting", "Requests in the queue.", [({}, now.waiting)])
        reasons = [({"reason": "capacity"}, now.waiting), ({"reason": "deferred"}, 0)]
        yield self._gauge("num_requests_waiting_by_reason", "Requests in the queue, by what they wait for.", reasons)
        states = [({"sleep_state": state}, state == "awake") for state in ("awake", "weights_offloaded", "discard_all")]
        yield self._gauge("engine_sleep_state", "1 for the state the engine is in.", states)
        yield self._gauge("kv_cache_usage_perc", "KV cache in use, 0 to 1.", [({}, now.kv_usage)])

    def _counters(self) -> Iterable[Metric]:
        metrics, kv = self._metrics, self._model.kv
        prompt, cached = metrics.prompt_tokens, metrics.cached_tokens
        yield self._counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", [({}, kv.queries)])
        yield self._counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.", [({}, kv.hits)])
        for name in (
            "external_prefix_cache_queries",
            "external_prefix_cache_hits",
            "mm_cache_queries",
            "mm_cache_hits",
        ):
            yield self._counter(name, "Not modelled.", [({}, 0)])
        yield self._counter("num_preemptions", "Pre-emptions.", [({}, metrics.preemptions)])
        yield self._counter("prompt_tokens", "Prompt tokens of requests that have a first token.", [({}, prompt)])
        sources = zip(_PROMPT_SOURCES, (prompt - cached, cached, 0), strict=True)
        by_source = [({"source": source}, value) for source, value in sources]
        yield self._counter("prompt_tokens_by_source", "Prompt tokens, by where they came from.", by_source)
        yield self._counter("prompt_tokens_cached", "Prompt tokens that were not computed.", [({}, cached)])
        cached_by = [({"source": source}, cached if source == "device" else 0) for source in _CACHE_SOURCES]
        yield self._counter("prompt_tokens_cached_by_source", "Prompt tokens not computed, by cache.", cached_by)
        yield self._counter("generation_tokens", "Generated tokens.", [({}, metrics.generated_tokens)])
        finished = [({"finished_reason": reason}, metrics.finished[reason]) for reason in _FINISH_REASONS]
        yield self._counter("request_success", "Ended requests, by finish reason.", finished)
        rejections = [({"reason": "max_num_queued_reqs"}, metrics.rejected), ({"reason": "max_num_queued_tokens"}, 0)]
        model_only = {"model_name": self._labels["model_name"]}
        yield self._counter("admission_rejections", "Requests refused because of load.", rejections, model_only)

    def _histograms(self) -> Iterable[Metric]:
        metrics = self._metrics
        for name, documentation, histogram in (
            ("request_prompt_tokens", "Prompt tokens of ended requests.", metrics.prompt),
            ("request_generation_tokens", "Generated tokens of ended requests.", metrics.generation),
            ("iteration_tokens_total", "Tokens per step.", metrics.step_tokens),
            ("request_max_num_generation_tokens", "Longest answer of a request.", metrics.generation),
            ("request_params_n", "Answers asked per request.", metrics.answers),
            ("request_params_max_tokens", "Limit on generated tokens.", metrics.max_tokens),
            ("time_to_first_token_seconds", "Seconds to the first token.", metrics.first_token),
            ("inter_token_latency_seconds", "Seconds between tokens.", metrics.token_gap),
            ("request_time_per_output_token_seconds", "Mean seconds per token after the first.", metrics.per_token),
            ("e2e_request_latency_seconds", "Seconds from arrival to end.", metrics.end_to_end),
            ("request_queue_time_seconds", "Seconds from arrival to admission.", metrics.queue_time),
            ("request_inference_time_seconds", "Seconds from admission to end.", metrics.inference_time),
            ("request_prefill_time_seconds", "Seconds from admission to first token.", metrics.prefill_time),
            ("request_decode_time_seconds", "Seconds from first token to end.", metrics.decode_time),
            ("request_num_preemptions", "Pre-emptions per request.", metrics.request_preemptions),
            ("request_prefill_kv_computed_tokens", "Prompt tokens computed per request.", metrics.computed),
        ):
            yield self._histogram(name, documentation, histogram)

    def _gauge(self, name: str, documentation: str, values: Values) -> Metric:
        family = Metric(f"vllm:{name}", documentation, "gauge")
        own = {"engine": self._labels["engine"]} if name == "cache_config_info" else self._labels
        for labels, value in values:
            family.add_sample(f"vllm:{name}", own | dict(labels), float(value))
        return family

    def _counter(self, name: str, documentation: str, values: Values, own: Mapping[str, str] | None = None) -> Metric:
        family = Metric(f"vllm:{name}", documentation, "counter")
        for suffix, fixed in (("_total", None), ("_created", self._created)):
            for labels, value in values:
                shown = float(value if fixed is None else fixed)
                family.add_sample(f"vllm:{name}{suffix}", dict(own or self._labels) | dict(labels), shown)
        return family

    def _histogram(self, name: str, documentation: str, histogram: Histogram) -> Metric:
        family = Metric(f"vllm:{name}", documentation, "histogram")
        total = 0
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            total += count
            family.add_sample(f"vllm:{name}_bucket", self._labels | {"le": _bound(bound)}, total)
        family.add_sample(f"vllm:{name}_count", self._labels, total)
        family.add_sample(f"vllm:{name}_sum", self._labels, histogram.sum)
        family.add_sample(f"vllm:{name}_created", self._labels, self._created)
        return family


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(bound)


def cache_config_labels(model: EngineModel, *, prefix_cache: bool) -> dict[str, str]:
    """Return the labels of `vllm:cache_config_info`; block size and count are the two that routers read."""
    tokens, block = model.kv.capacity, model.kv.block_size
    unset = dict.fromkeys(
        (
            *("cache_hit_alignment_tokens", "hash_block_size", "kv_cache_layout", "kv_offloading_size"),
            *("mamba_block_size", "mamba_page_size_padded", "num_cpu_blocks", "num_gpu_blocks_override"),
            *("prefix_match_unit", "skip_page_size_padded", "sliding_window"),
        ),
        "None",
    )
    off = dict.fromkeys(
        (
            *("enable_mamba_shared_prefix_checkpoint", "is_attention_free", "kv_sharing_fast_prefill"),
            *("use_kda_recoverssm", "use_replayssm", "user_specified_block_size"),
        ),
        "False",
    )
    return (
        unset
        | off
        | {
            "_block_size_resolved": "True",
            "block_size": str(block),
            "cache_dtype": "auto",
            "effective_attention_block_size": str(block),
            "enable_prefix_caching": str(prefix_cache),
            "gpu_memory_utilization": "0.92",
            "kv_cache_dtype_skip_layers": "[]",
            "kv_cache_max_concurrency": str(model.profile.max_sequences),
            "kv_cache_memory_bytes": "None",
            "kv_cache_size_tokens": str(tokens),
            "kv_offloading_backend": "native",
            "mamba_cache_dtype": "auto",
            "mamba_cache_mode": "none",
            "mamba_ssm_cache_dtype": "float32",
            "num_gpu_blocks": str(tokens // block),
            "prefix_cache_retention_interval": "0",
            "prefix_caching_hash_algo": "sha256",
            "replayssm_buffer_len": "16",
            "swa_bounded_replay": "True",
        }
    )
