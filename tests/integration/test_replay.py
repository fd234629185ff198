"""Live traffic recorded by a router, and replayed by the simulator under other policies. Real processes on loopback."""

import json
import subprocess
import sys
import urllib.request

import pytest

from ups import document, get, write

TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:17:{second / 10:010.7f},{600 + 37 * second % 900},{2 + second % 11}\n" for second in range(60)
)


def run(*arguments):
    """Run a command of halffull to its end; what it printed."""
    command = [sys.executable, "-m", "halffull", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_recorded_requests_are_simulated_under_other_policies(up, file, tmp_path, eventually):
    write(file, document(policy="least-requests"))
    running = up(file, "--record", tmp_path / "recorded")
    url, admin = running.serving()
    trace = tmp_path / "sent.csv"
    trace.write_text(TRACE)
    run("load", "--url", url, "--model", "model-of-llama", "--trace", trace, "--api", "completions")
    recording = tmp_path / "recorded" / "llama.jsonl"
    eventually(lambda: (get(f"{admin}/status")["recording"] or {}).get("recorded") == 60)
    with urllib.request.urlopen(f"{admin}/recording", timeout=30) as answer:
        assert answer.read() == recording.read_bytes()
    running.end()

    entries = [json.loads(line) for line in recording.read_text().splitlines()[1:]]
    sent = [line.split(",")[1:] for line in TRACE.splitlines()[1:]]
    assert sorted((entry["input_length"], entry["output_length"]) for entry in entries) == sorted(
        (int(prompt), int(output)) for prompt, output in sent
    )
    assert all(len(entry["hash_ids"]) == (entry["prompt_bytes"] + 1) // 512 for entry in entries)
    figures = tmp_path / "figures.json"
    said = run(
        "simulate", "--trace", recording, "--policies", "least-requests,sal", "--replicas", 2, "--seeds", 1,
        "--json", figures,
    )  # fmt: skip
    assert said.lstrip().startswith("llama.jsonl, 2 replicas")
    told = json.loads(figures.read_text())
    assert [contender["name"] for contender in told["contenders"]] == ["least-requests", "sal"]
    assert told["rate"] == pytest.approx(60 / 5.9, rel=0.2), "requests come as they came"


def test_a_deployment_may_ask_for_it(up, file, eventually):
    write(file, document(router={"record": {"maxBytes": 2_000_000}}))
    url, admin = up(file).serving()
    body = json.dumps({"model": "model-of-llama", "prompt": "one two three", "max_tokens": 5}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()
    with urllib.request.urlopen(f"{admin}/recording", timeout=30) as answer:
        header, entry = map(json.loads, answer.read().splitlines())
    assert (header["recording"], entry["input_length"], entry["output_length"]) == (1, 3, 5)
    write(file, document())
    eventually(lambda: len(get(f"{admin}/status")["config"]["hash"]) and not recording_now(admin, request))


def recording_now(admin, request):
    """Whether one more request is recorded."""

    def count():
        with urllib.request.urlopen(f"{admin}/recording", timeout=30) as answer:
            return answer.read().count(b"\n")

    before = count()
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()
    return count() > before
