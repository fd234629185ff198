"""All engine types, one row each. Callers: `api` (the enum of `spec.engine.type`), router, operator, `halffull up`."""

from collections.abc import Mapping

from halffull.engines.base import Adapter
from halffull.engines.simulated import SIMULATED
from halffull.engines.vllm import VLLM

ENGINES: Mapping[str, Adapter] = {
    "vllm": VLLM,
    "simulated": SIMULATED,
}
