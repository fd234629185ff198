"""Our own engine, `halffull engine`: vLLM's wire over a model of an engine. Caller: the catalog."""

from dataclasses import replace

from halffull.engines.arguments import Flag
from halffull.engines.base import Container
from halffull.engines.vllm import VLLM

SIMULATED = replace(
    VLLM,
    type="simulated",
    container=Container(
        command=("halffull", "engine"),
        flags=(
            Flag(("--port",), "{port}"),
            Flag(("--model", "--served-model-name"), "{model}"),
        ),
        pre_stop_seconds=5,
    ),
)
