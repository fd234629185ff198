"""All engine types, one row each. Callers: `api` (the enum of `spec.engine.type`), router, operator, `halffull up`."""

from collections.abc import Mapping

from halffull.engines.base import Adapter
from halffull.engines.llamacpp import LLAMACPP
from halffull.engines.lmdeploy import LMDEPLOY
from halffull.engines.sglang import SGLANG
from halffull.engines.simulated import SIMULATED
from halffull.engines.tgi import TGI
from halffull.engines.trtllm import TRTLLM
from halffull.engines.vllm import VLLM

ENGINES: Mapping[str, Adapter] = {
    adapter.type: adapter for adapter in (VLLM, SGLANG, TGI, TRTLLM, LLAMACPP, LMDEPLOY, SIMULATED)
}
