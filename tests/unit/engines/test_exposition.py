"""Single values out of an exposition: names, labels, ranks, processes, garbage."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halffull.core.values import Signals
from halffull.engines.catalog import ENGINES
from halffull.engines.exposition import Exposition, Series

GAUGE = Series((b"a:running",))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a:running 3", 3),
        ("a:running 3\n", 3),
        ('# TYPE a:running gauge\na:running{x="1"} 4.0\n', 4),
        ("a:running{} 2\n", 2),
        ("a:running 2 1795221231120\n", 2),
        ('a:running{x="}"} 2 1795221231120\n', 2),
        ('a:running{x="\\"} 9\\\\"} 2\n', 2),
        ("a:running\t2\n", 2),
        ("a:running_by_reason 9\na:running 2\n", 2),
        ("a:running 2\na:running_by_reason 9\n", 2),
        ("a:running_by_reason 9\n", None),
        ("b a:running 9\n", None),
        ("# HELP a:running 9\n", None),
        ("", None),
        ("a:running", None),
        ("a:running NaN\n", None),
        ("a:running +Inf\n", None),
        ("a:running -1\n", None),
        ("a:running 1e15\n", 1e15),
        ("a:running 1e308\n", None),  # sums of such would be infinite
        ("a:running x\n", None),
        ("a:running{\n", None),
        ('a:running{engine="0"} NaN\na:running{engine="1"} 2\n', 2),
    ],
)
def test_one_value(text, value):
    assert Exposition(text).value(GAUGE) == value
    assert Exposition(text.encode()).value(GAUGE) == value


RANKS = 'a:running{engine="0"} 2\na:running{engine="1"} 4\n'
PROCESSES = 'a:running{pid="7"} 2\na:running{pid="8"} 4\n'
STREAMS = 'a:running{stream="true"} 2\na:running{stream="false"} 4\n'


@pytest.mark.parametrize(
    ("text", "across", "value"),
    [
        (RANKS, "sum", 6),
        (RANKS, "mean", 3),
        (PROCESSES, "sum", 4),
        (STREAMS, "sum", 6),
        (
            'a:running{engine="0",pid="1"} 5\na:running{pid="2",engine="0"} 1\na:running{engine="1",pid="1"} 7\n',
            "mean",
            6,
        ),
    ],
)
def test_series_of_one_replica_combine(text, across, value):
    assert Exposition(text).value(Series((b"a:running",), across=across)) == value


def test_the_first_candidate_that_says_something_counts():
    read = Exposition("new NaN\nold 5\n")

    assert read.value(Series((b"newest", b"new", b"old"))) == 5


def test_look_ups_may_come_in_any_order():
    read = Exposition("a 1\nb 2\nc 3\n")

    assert [read.value(Series((name,))) for name in (b"c", b"a", b"b", b"a", b"c")] == [3, 1, 2, 1, 3]


@pytest.mark.parametrize(
    ("text", "value"), [("a 0.5", 0.5), ("a 1.0", 1), ("a 50", 0.5), ("a 100", 1), ("a 101", None)]
)
def test_a_fraction_above_one_is_a_percentage(text, value):
    assert Exposition(text).fraction(Series((b"a",))) == value


NAMES = [
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "sglang:max_total_num_tokens",
    "sglang:cache_config_info",
    "sglang:realtime_tokens_total",
    "tgi_batch_current_max_tokens",
    "tgi_batch_max_total_tokens",
    "trtllm_kv_cache_max_blocks",
    "trtllm_kv_cache_tokens_per_block",
    "llamacpp:prompt_tokens_total",
    "vllm:lora_requests_info",
    "lmdeploy:num_api_requests_waiting",
]
PIECES = st.sampled_from(
    [
        *NAMES,
        *'{}",= \n\t\\#',
        'engine="0"',
        'num_gpu_blocks="',
        'block_size="1e999"',
        'kv_cache_size_tokens="' + "9" * 5000 + '"',
        'max_lora="',
        'running_lora_adapters="a,,b"',
        "NaN",
        "1e308",
        "-1",
        "0",
        "12.5",
        "_total",
        "é",
    ]
)
GARBAGE = st.one_of(st.binary(), st.lists(PIECES).map(lambda pieces: "".join(pieces).encode()))


@pytest.mark.parametrize("adapter", ENGINES.values(), ids=list(ENGINES))
@given(body=GARBAGE)
def test_garbage_gives_none_or_a_sane_number(adapter, body):
    found = adapter.signals(body)

    for field in fields(Signals):
        value = getattr(found, field.name)
        if field.name == "adapters":
            assert all(value)
            continue
        assert value is None or 0 <= value < float("inf"), field.name
    assert found.kv_usage is None or found.kv_usage <= 1


def test_a_long_line_is_read_in_one_pass() -> None:
    """Tried again from each of its letters, this one would take an hour."""
    body = b"vllm:num_requests_running{%b} 3\n" % (b"a" * (1 << 20))
    assert ENGINES["vllm"].signals(body).running == 3
