"""Workloads by name, as the design's figures use them: lengths, arrivals, GPU and memory. Read by `setting`."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Trace:
    """Lengths, and arrivals, of a trace."""

    file: str
    """its name in a directory of traces"""
    recorded: str | None = None
    """name among the lengths that ship with halffull; None: they do not"""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths without a trace: lognormal, medians in tokens."""

    prompt_tokens: float
    output_tokens: float
    prompt_spread: float
    output_spread: float
    """sigma of the logarithm"""
    longest: int
    """tokens; longer ones are cut"""


@dataclass(frozen=True, slots=True)
class Preset:
    """One workload and the machine that it is meant for."""

    summary: str
    lengths: Trace | Lengths
    poisson: bool = True
    profile: str = "a100"
    kv_tokens: int = 400_000
    max_batched_tokens: int = 2048
    prefix_cache: bool = False


CONVERSATION = Trace("azure-2023-conversation.csv", "conversation")
CODE = Trace("azure-2023-code.csv", "code")
MOONCAKE = Trace("mooncake-synthetic.jsonl")
REASONING = Lengths(150, 900, prompt_spread=0.9, output_spread=0.892, longest=10_000)
"""the mean output is 1,340 tokens"""

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "conv": Preset("Azure conversation, arrivals as recorded", CONVERSATION, poisson=False),
        "convP": Preset("Azure conversation, Poisson arrivals", CONVERSATION),
        "convT": Preset("conv with little KV memory", CONVERSATION, poisson=False, kv_tokens=60_000),
        "convTP": Preset("convP with little KV memory", CONVERSATION, kv_tokens=60_000),
        "code": Preset("Azure code, arrivals as recorded: very bursty", CODE, poisson=False),
        "codeP": Preset("Azure code, Poisson arrivals", CODE),
        "reasTP": Preset("long answers with little KV memory, Poisson arrivals", REASONING, kv_tokens=120_000),
        "moonS": Preset(
            "Mooncake synthetic trace with prefix cache, arrivals as recorded",
            MOONCAKE,
            poisson=False,
            profile="h100",
            max_batched_tokens=8192,
            prefix_cache=True,
        ),
    }
)
