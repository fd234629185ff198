"""Paths, arguments and the events that say that an engine took no request."""

from pathlib import Path

import pytest

from halffull.engines.base import Dialect, aborted, busy, dead
from halffull.engines.catalog import ENGINES

RECORDINGS = Path(__file__).parents[2] / "recordings" / "vllm-0.32"


def test_the_catalog_names_each_adapter_by_its_type():
    assert {name: adapter.type for name, adapter in ENGINES.items()} == {name: name for name in ENGINES}
    assert list(ENGINES) == ["vllm", "sglang", "tgi", "trtllm", "llamacpp", "lmdeploy", "simulated"]


@pytest.mark.parametrize("adapter", ENGINES.values(), ids=list(ENGINES))
def test_paths(adapter):
    chat = adapter.path("/v1/chat/completions")

    assert chat is not None
    assert (chat.dialect, chat.streams, chat.resendable) == (Dialect.OPENAI, True, True)
    assert adapter.path("/metrics") is None
    assert adapter.path("/health") is None
    assert adapter.path("/v1/chat/completions/") is None
    assert not [path for path in adapter.paths if adapter.administrative(path)]


def test_vllm_paths():
    vllm = ENGINES["vllm"]
    stored = vllm.path("/v1/responses/resp_1/cancel")

    assert stored is not None
    assert not stored.resendable
    assert vllm.path("/v1/messages").dialect is Dialect.ANTHROPIC
    assert vllm.administrative("/sleep")
    assert vllm.administrative("/v1/load_lora_adapter")
    assert not vllm.administrative("/sleepy")


def test_paths_below_an_administrative_one_are_administrative():
    assert ENGINES["llamacpp"].administrative("/slots/0")


@pytest.mark.parametrize(
    ("args", "limits"),
    [
        ([], (None, None)),
        (["--max-num-seqs", "64", "--max-num-batched-tokens=4096"], (64, 4096)),
        (["--max_num_seqs=64"], (64, None)),
        (["--max-num-seqs=32", "--max-num-seqs", "64"], (64, None)),
        (["--max-num-active-seqs", "32", "--max-num-seqs=64"], (32, None)),
        (["--max-num-batched-tokens", "8k"], (None, 8000)),
        (["--max-num-batched-tokens", "2K"], (None, 2048)),
        (["sh", "-c", "exec vllm serve /m --max-num-seqs 16 --port 1"], (16, None)),
        (["sh", "-c", "vllm serve 'm --max-num-seqs 16"], (16, None)),
        (["--max-num-seqs"], (None, None)),
        (["--max-num-seqs", "many"], (None, None)),
        (["--max-num-seqs", "0"], (None, None)),
        (["--max-num-seqs", "inf"], (None, None)),
        (["--max-num-seqs", "1e999"], (None, None)),
    ],
)
def test_limits_from_arguments(args, limits):
    assert ENGINES["vllm"].limits(args) == limits


@pytest.mark.parametrize("engine", ["vllm", "sglang", "simulated"])
def test_engines_that_go_on_with_a_text(engine):
    chat, completions = (ENGINES[engine].path(path).continuing for path in ("/v1/chat/completions", "/v1/completions"))
    assert (chat.by, completions.by) == ("messages", "prompt")
    assert chat.usage
    assert completions.usage
    assert not {"tools", "logprobs", "response_format", "echo", "best_of"} & (chat.fields | completions.fields)


def test_limits_of_other_engines():
    assert ENGINES["llamacpp"].limits(["-np", "8"]) == (8, None)
    assert ENGINES["trtllm"].limits(["model", "--max_batch_size", "32"]) == (32, None)
    assert ENGINES["sglang"].limits(["--max-running-requests", "99"]) == (99, None)


@pytest.mark.parametrize(
    ("engine", "user", "args"),
    [
        ("vllm", [], ["--port", "8000", "--model", "m", "--served-model-name", "m"]),
        ("vllm", ["--model=/x", "--port=1"], ["--model=/x", "--port=1", "--served-model-name", "m"]),
        ("vllm", ["/x"], ["/x", "--port", "8000", "--served-model-name", "m"]),
        ("vllm", ["/x", "--served_model_name=n"], ["/x", "--served_model_name=n", "--port", "8000"]),
        ("simulated", ["--profile", "h100"], ["--profile", "h100", "--port", "8000", "--model", "m"]),
        (
            "sglang",
            ["--model-path", "/x"],
            [
                "--model-path",
                "/x",
                "--host",
                "0.0.0.0",
                "--port",
                "8000",
                "--served-model-name",
                "m",
                "--enable-metrics",
            ],
        ),
        (
            "llamacpp",
            ["-m", "x", "-a", "n"],
            ["-m", "x", "-a", "n", "--host", "0.0.0.0", "--port", "8000", "--metrics"],
        ),
        ("lmdeploy", ["/x"], ["/x", "--server-port", "8000", "--model-name", "m"]),
    ],
)
def test_container_arguments_add_only_what_is_absent(engine, user, args):
    assert ENGINES[engine].container.args(8000, "m", user) == args
    assert ENGINES[engine].container.args(8000, "m", args) == args


def event(name: str) -> bytes:
    return (RECORDINGS / name).read_bytes().split(b"data: ")[1].split(b"\n")[0]


def test_the_recorded_busy_event():
    assert busy(event("err_busy_in_stream.http"))


@pytest.mark.parametrize(
    ("data", "is_busy"),
    [
        (b'{"error": {"message": "", "type": "x", "code": 503}}', True),
        (b'{"error": {"message": "", "type": "x", "code": "503"}}', True),
        (b'{"error": {"message": "", "code": 429}}', True),
        (b'{"object": "error", "message": "The request queue is full.", "code": 503}', True),
        (b'{"error": "Model is overloaded", "error_type": "overloaded"}', True),
        (b'{"type": "error", "error": {"type": "overloaded_error", "message": ""}}', True),
        (b'{"error": {"message": "", "code": 400}}', False),
        (b'{"error": "x", "error_type": "generation"}', False),
        (b'{"choices": [{"delta": {"content": "\\"error\\" code 503"}}]}', False),
        (b'{"choices": [{"delta": {"content": "error"}}], "code": 503}', False),
        (b"error", False),
        (b"[" * 100_000 + b"error", False),
        (b"\xff error", False),
        (b'["error"]', False),
    ],
)
def test_busy(data, is_busy):
    assert busy(data) is is_busy


@pytest.mark.parametrize(
    ("data", "is_aborted"),
    [
        (b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}', True),
        (b'{"choices": [{"index": 0, "finish_reason": "stop"}, {"index": 1, "finish_reason": "abort"}]}', True),
        (b'{"choices": [{"index": 0, "delta": {"content": "\\"abort\\""}, "finish_reason": null}]}', False),
        (b'{"choices": [{"text": "abort", "finish_reason": "stop"}]}', False),
        (b'{"choices": "abort"}', False),
        (b'"abort"', False),
    ],
)
def test_aborted(data, is_aborted):
    assert aborted(data) is is_aborted


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"error":{"message":"EngineCore encountered an issue. See stack trace","code":500}}', True),
        (b'{"object":"error","message":"EngineCore encountered an issue. See stack trace","code":500}', True),
        (b'{"error":{"message":"cannot schedule new futures after shutdown","code":500}}', True),
        (b'{"error":{"message":"Internal server error","code":500}}', False),
        (b'{"choices":[{"text":"EngineCore encountered an issue"}]}', False),
        (b'{"error":"EngineCore encountered an issue"}', False),
        (b"EngineCore encountered an issue", False),
    ],
)
def test_an_engine_that_has_died_says_so(data, expected):
    assert dead(data) is expected
