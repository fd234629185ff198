"""Constants of the engine model: how long a step takes on a GPU, and how much fits in its memory.

Read by the engine model, by `halffull engine` and by the simulator. None of the figures was measured by us on a GPU: they follow
from model size, memory bandwidth and peak arithmetic with the usual efficiencies, as each profile says.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Cost of one step: base + per_prefill_token * p + per_attention * pairs + per_decode * n + per_kv_token * kv."""

    base: float
    """seconds of every step: reading the weights, host overhead"""
    per_prefill_token: float
    """seconds per prompt token computed in the step"""
    per_attention: float
    """seconds per (query, key) pair of the prompt tokens: chunk * (context + chunk / 2)"""
    per_decode: float
    """seconds per sequence that decodes in the step"""
    per_kv_token: float
    """seconds per KV token that the decoding sequences attend to"""
    kv_tokens: int
    """tokens that the KV cache holds"""
    max_batched_tokens: int
    """tokens that one step may compute, prompt chunks and decodes together"""
    max_sequences: int = 256
    """sequences that may run at once"""


PROFILES: Mapping[str, Profile] = {
    # Llama-3-8B in bf16 on an A100-80GB: 16 GB of weights at 2.0 TB/s and host overhead; 16 GFLOP per token at about
    # 60 % of 312 TFLOPS; 128 KiB of KV per token at 80 % of 2.0 TB/s.
    "a100": Profile(9.5e-3, 85e-6, 3.5e-9, 40e-6, 82e-9, kv_tokens=400_000, max_batched_tokens=2048),
    # The same model on an H100-80GB: 3.35 TB/s, about 55 % of 989 TFLOPS.
    "h100": Profile(6.0e-3, 29e-6, 1.5e-9, 25e-6, 49e-9, kv_tokens=400_000, max_batched_tokens=8192),
}
