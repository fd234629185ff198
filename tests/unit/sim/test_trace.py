"""Traces: all forms are read, times count from the first arrival, and an error names the line."""

import json

import pytest

from halffull.sim.trace import RECORDED, Call, Live, TraceError, parse_trace, read_trace, recorded_lengths

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:18:04.9799600,110,27
"""
MOONCAKE = """{"timestamp": 1000, "input_length": 1100, "output_length": 6, "hash_ids": [0, 1, 2]}

{"timestamp": 1277, "input_length": 700, "output_length": 92, "hash_ids": [0, 7]}
"""


def recording(*entries):
    """What routers write: a header, then a line per request; this one's tokens have five bytes."""
    usual = {
        "output_length": 3, "hash_ids": [], "prompt_bytes": 5, "input_length": 1, "stream": True, "max_tokens": None,
        "priority": 0, "caller": "", "session": "", "status": 200, "replica": "a",
    }  # fmt: skip
    lines = [{"recording": 1, "blockBytes": 512}, *({**usual, **entry} for entry in entries)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_azure_rows_are_sorted_and_count_from_the_first():
    calls = parse_trace(AZURE, "a.csv")

    assert [(call.prompt_tokens, call.output_tokens) for call in calls] == [(4808, 10), (3180, 8), (110, 27)]
    assert [call.at_s for call in calls] == pytest.approx([0.0, 0.052, 61.0])


def test_azure_rows_across_midnight_keep_their_distance():
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 23:59:59.5,1,1\n2023-11-17 00:00:01,1,1\n"

    assert parse_trace(text, "a.csv")[1].at_s == pytest.approx(1.5)


def test_mooncake_lines_keep_their_blocks():
    assert parse_trace(MOONCAKE, "m.jsonl") == [
        Call(0.0, 1100, 6, (0, 1, 2)),
        Call(pytest.approx(0.277), 700, 92, (0, 7)),
    ]


def test_a_recording_keeps_what_the_router_knew_and_leaves_out_what_got_no_token():
    asked = {"stream": False, "priority": 2, "caller": "c", "session": "s"}
    text = recording({"timestamp": 2000, "input_length": 7, "prompt_bytes": 35, **asked}) + recording(
        {"timestamp": 1500.5, "input_length": 9, "prompt_bytes": 45},
        {"timestamp": 1, "output_length": 0, "status": 503},
    )
    assert parse_trace(text, "r.jsonl") == [
        Call(0.0, 9, 3, (), Live(True, 0, "", "")),
        Call(pytest.approx(0.4995), 7, 3, (), Live(False, 2, "c", "s")),
    ]


def test_prompts_of_a_recording_share_the_blocks_that_their_texts_share():
    """Five bytes a token: 512 tokens are five blocks of the router."""
    prompt = {"timestamp": 0, "input_length": 2048, "prompt_bytes": 10240}
    first, second = [*range(20)], [*range(12), *range(100, 108)]
    calls = parse_trace(recording({**prompt, "hash_ids": first}, {**prompt, "hash_ids": second}), "r.jsonl")
    assert [call.blocks for call in calls] == [(4, 9, 14, 19), (4, 9, 102, 107)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns TIMESTAMP"),
        ("a,b\n1,2\n", "columns TIMESTAMP"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no requests"),
        (AZURE + "2023-11-16 18:17:04,many,8\n", "line 5: .*many"),
        (AZURE + "2023-11-16 18:17:04,5\n", "line 5"),
        (AZURE + "yesterday,5,8\n", "line 5: .*yesterday"),
        (AZURE + "2023-11-16 18:17:04,5,0\n", "line 5: .*at least one"),
        (MOONCAKE + '{"timestamp": 0, "input_length": 5}\n', "line 4: 'output_length' is missing"),
        (MOONCAKE + "nonsense\n", "line 4"),
        (MOONCAKE + "[]\n", "line 4"),
        (recording({"timestamp": "noon"}), "line 2: .*noon"),
        (recording({}), "line 2: 'timestamp' is missing"),
        (recording() + "{}\n", "line 2: 'output_length' is missing"),
        (recording({"timestamp": 1})[:-9], "line 2"),
        (MOONCAKE + '{"timestamp": null, "input_length": 5, "output_length": 5}\n', "line 4"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(text, said):
    with pytest.raises(TraceError, match=f"^trace.*{said}"):
        parse_trace(text, "trace")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"nothing\.csv"):
        read_trace(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("name", "requests", "prompt_tokens", "output_tokens"),
    [("conversation", 2000, 1155, 211), ("code", 1000, 2048, 28)],
)
def test_the_shipped_samples_have_the_means_of_the_whole_traces(name, requests, prompt_tokens, output_tokens):
    calls = recorded_lengths(name)

    assert set(RECORDED) == {"conversation", "code"}
    assert len(calls) == requests
    assert sum(call.prompt_tokens for call in calls) / requests == pytest.approx(prompt_tokens, rel=0.02)
    assert sum(call.output_tokens for call in calls) / requests == pytest.approx(output_tokens, rel=0.08)
