"""What each adapter reads of an exposition in its engine's shape; vLLM's are recorded from 0.32, the others written."""

from pathlib import Path

import pytest

from halffull.core.values import Signals
from halffull.engines.catalog import ENGINES

RECORDINGS = Path(__file__).parents[2] / "recordings" / "vllm-0.32"

RECORDED = {
    "idle": Signals(0, 0, 0, 131072, 88, 48, 0, 88, 0, 0.3541000240006724),
    "loaded": Signals(4, 12, 0.027370478983382185, 131072, 3200, 6, 0, 3200, 0, 0.2116036500001428),
    "after": Signals(0, 0, 0, 131072, 10889, 1850, 0, 10889, 0, 20.165276664000885),
}


@pytest.mark.parametrize("engine", ["vllm", "simulated"])
@pytest.mark.parametrize(("name", "signals"), RECORDED.items())
def test_a_recorded_vllm(engine, name, signals):
    assert ENGINES[engine].signals((RECORDINGS / f"metrics_{name}.txt").read_bytes()) == signals


VLLM_0_10 = """\
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:gpu_cache_usage_perc{engine="1",model_name="m"} 0.4
vllm:gpu_prefix_cache_queries_total{engine="0",model_name="m"} 100.0
vllm:gpu_prefix_cache_hits_total{engine="0",model_name="m"} 40.0
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:num_preemptions_total{engine="1",model_name="m"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1000.0
vllm:generation_tokens_total{engine="0",model_name="m"} 500.0
vllm:time_per_output_token_seconds_sum{engine="0",model_name="m"} 7.5
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1000"} 1.0
"""

SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",priority="",tp_rank="0"} 9.0
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",priority="1",tp_rank="0"} 4.0
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",priority="",tp_rank="1"} 9.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 2.0
sglang:num_grammar_queue_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 1.0
sglang:token_usage{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 0.31
sglang:max_total_num_tokens{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 412160.0
sglang:num_retracted_requests_total{engine_type="unified",model_name="m",tp_rank="0"} 3.0
sglang:prompt_tokens_total{engine_type="unified",is_streaming="true",model_name="m"} 90210.0
sglang:prompt_tokens_total{engine_type="unified",is_streaming="false",model_name="m"} 90.0
sglang:generation_tokens_total{engine_type="unified",is_streaming="true",model_name="m"} 800.0
sglang:cached_tokens_total{cache_source="device",model_name="m"} 200.0
sglang:cached_tokens_total{cache_source="host",model_name="m"} 100.0
sglang:cached_tokens_total{cache_source="total",model_name="m"} 300.0
"""

SGLANG_REALTIME = """\
sglang:num_running_reqs{dp_rank="0",tp_rank="0"} 2.0
sglang:num_running_reqs{dp_rank="1",tp_rank="0"} 3.0
sglang:token_usage{dp_rank="0",tp_rank="0"} 0.2
sglang:token_usage{dp_rank="1",tp_rank="0"} 0.4
sglang:num_pages{dp_rank="0",tp_rank="0"} 100.0
sglang:num_pages{dp_rank="1",tp_rank="0"} 100.0
sglang:page_size{dp_rank="0",tp_rank="0"} 64.0
sglang:page_size{dp_rank="1",tp_rank="0"} 64.0
sglang:realtime_tokens_total{mode="prefill_compute",tp_rank="0"} 700.0
sglang:realtime_tokens_total{mode="prefill_cache",tp_rank="0"} 300.0
sglang:realtime_tokens_total{mode="decode",tp_rank="0"} 50.0
sglang:prompt_tokens_total{is_streaming="true"} 10.0
sglang:inter_token_latency_seconds_sum{is_streaming="true"} 9.5
"""

SGLANG_LABELS = 'sglang:num_running_reqs 1.0\nsglang:cache_config_info{page_size="64",num_pages="10"} 1.0\n'

TGI = """\
# TYPE tgi_queue_size gauge
tgi_queue_size 4
tgi_batch_current_size 16
tgi_batch_current_max_tokens 5000
tgi_batch_max_total_tokens 20000
tgi_batch_inference_count{method="prefill"} 103
tgi_request_input_length_sum 1234
tgi_request_input_length_count 10
tgi_request_generated_tokens_sum 55.5
"""

TRTLLM = """\
trtllm_num_requests_running{engine_type="undefined",model_name="undefined",pid="17"} 6.0
trtllm_num_requests_running{engine_type="undefined",model_name="undefined",pid="18"} 0.0
trtllm_num_requests_waiting{engine_type="undefined",model_name="undefined",pid="17"} 1.0
trtllm_kv_cache_utilization{pid="17"} 62.0
trtllm_kv_cache_max_blocks{pid="17"} 1000.0
trtllm_kv_cache_used_blocks{pid="17"} 620.0
trtllm_kv_cache_tokens_per_block{pid="17"} 32.0
trtllm_prompt_tokens_total{model_name="undefined"} 4000.0
trtllm_generation_tokens_total{model_name="undefined"} 900.0
trtllm_prompt_cached_tokens_total{model_name="undefined"} 1000.0
"""

LLAMACPP = """\
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
llamacpp:requests_deferred 5
llamacpp:prompt_tokens_total 143
llamacpp:tokens_predicted_total 21
"""

LMDEPLOY = """\
lmdeploy:num_requests_running{engine="0",model_name="m"} 3.0
lmdeploy:num_requests_waiting{engine="0",model_name="m"} 1.0
lmdeploy:num_api_requests_waiting{engine="0",model_name="m"} 2.0
lmdeploy:gpu_cache_usage_perc{engine="0",model_name="m"} 0.25
lmdeploy:prompt_tokens_total{engine="0",model_name="m"} 100.0
lmdeploy:generation_tokens_total{engine="0",model_name="m"} 20.0
lmdeploy:cached_tokens_total{engine="0",model_name="m"} 30.0
"""


@pytest.mark.parametrize(
    ("engine", "text", "signals"),
    [
        ("vllm", VLLM_0_10, Signals(8, 1, pytest.approx(0.3), 32000, 1000, 500, 3, 100, 40, 7.5)),
        ("sglang", SGLANG, Signals(9, 3, 0.31, 412160, 90300, 800, 3, 90300, 300)),
        ("sglang", SGLANG_REALTIME, Signals(5, None, pytest.approx(0.3), 12800, 1000, 50, None, 1000, 300, 9.5)),
        ("sglang", SGLANG_LABELS, Signals(running=1, kv_tokens=640)),
        ("tgi", TGI, Signals(16, 4, 0.25, 20000, 1234, 55.5)),
        ("trtllm", TRTLLM, Signals(6, 1, 0.62, 32000, 4000, 900, None, 4000, 1000)),
        ("llamacpp", LLAMACPP, Signals(2, 5, None, None, 143, 21)),
        ("lmdeploy", LMDEPLOY, Signals(3, 3, 0.25, None, 100, 20, None, 100, 30)),
    ],
)
def test_each_engine(engine, text, signals):
    assert ENGINES[engine].signals(text.encode()) == signals


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_said_is_unknown(engine):
    assert ENGINES[engine].signals(b"http_requests_total 5\n") == Signals()


def test_kv_size_is_unknown_where_a_rank_does_not_say_it():
    text = 'vllm:cache_config_info{num_gpu_blocks="None",block_size="16",kv_cache_size_tokens="None"} 1.0\n'

    assert ENGINES["vllm"].signals(text.encode()).kv_tokens is None


def test_adapters_of_vllm_are_those_of_the_newest_series():
    """Its gauge keeps a series for each state that ever was; the value is the time."""
    lines = [
        ('max_lora="2",running_lora_adapters="old",waiting_lora_adapters=""', 1.7e9),
        ('max_lora="2",running_lora_adapters="b,a",waiting_lora_adapters="c"', 1.8e9),
        ('max_lora="2",running_lora_adapters="",waiting_lora_adapters="older"', 1.6e9),
    ]
    text = "".join(f"vllm:lora_requests_info{{{labels}}} {value}\n" for labels, value in lines)
    assert ENGINES["vllm"].signals(text.encode()) == Signals(adapters=("a", "b", "c"), adapter_slots=2)
