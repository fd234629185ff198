"""Wrong options and files: each command says which one is wrong, and what is allowed, and ends with status 2."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from halffull import cli

OPTIONS = {
    "up x.yaml --port 65536": "--port: 65536 is not allowed; allowed: 0 to 65535",
    "up x.yaml --admin-port -1": "--admin-port: -1 is not allowed; allowed: 0 to 65535",
    "router --workers 0": "--workers: 0 is not allowed; allowed: 1 or more",
    "router --config x --config-map y": "give --config or --config-map, not both",
    "router --config x --workers 2 --peers a:1 --admin-socket y": "--admin-socket, --peers: not with --workers",
    "router --workers 2": "give --config FILE, or --namespace NS and --config-map NAME",
    "router --config x --fallback-engine vllm": "--fallback-engine: 'vllm' is not TYPE=HOST:PORT",
    "router --config x --fallback-engine vlm=a:1": "--fallback-engine: 'vlm' is not allowed; allowed: vllm, sglang, ",
    "router --config x --fallback-engine vllm=a:b": "--fallback-engine: a:b: the port must be a number from 1 to 65535",
    "router --config x --peers a:99999": "--peers: a:99999: the port must be a number from 1 to 65535",
    "demo --seconds long": "--seconds: 'long' is not a number",
    "demo --seconds 1": "--seconds: 1 is not allowed; allowed: 5 or more",
    "router": "give --config FILE, or --namespace NS and --config-map NAME",
    "engine --port eighty": "--port: 'eighty' is not a whole number",
    "engine --metrics-lag -1": "--metrics-lag: -1 is not allowed; allowed: 0 or more",
    "engine --speedup nan": "--speedup: 'nan' is not a finite number",
    "engine --kv-events-config {": "--kv-events-config is not JSON",
    "crds --output /dev/null/crds": "--output: [Errno 20] Not a directory: '/dev/null/crds'",
    "load --model m --url ftp://host": "--url: 'ftp://host' is not allowed; allowed: http://... or https://...",
    "load --model m --rate fast": "--rate: 'fast' is not a number",
    "load --model m --stream-share 2": "--stream-share: 2 is not allowed; allowed: 0 to 1",
    "load --model m --timeout 0": "--timeout: 0 is not allowed; allowed: more than 0",
    "load --model m --json nowhere/x.json": "--json: there is no folder nowhere",
    "load --model m --trace nowhere.csv": "nowhere.csv: No such file or directory",
    "simulate --jobs 0": "--jobs: 0 is not allowed; allowed: 1 or more",
    "simulate --optimum 0": "--optimum: 0 is not allowed; allowed: 1 or more",
    "simulate --json .": "--json: . is a folder",
    "simulate --policies sla": "contenders[0].scheduling.policy: 'sla' is not allowed; allowed: 'random', ",
    "simulate --policies sal/fcfs/none/x": "--policies: 'sal/fcfs/none/x' is not allowed; allowed: POLICY[/ORDERING[/GATE]]",
    "simulate --baseline best": "baseline: 'best' is not allowed; allowed: round-robin, least-requests, sal",
    "simulate --load 0.5 --rate 2": "rate: give load or rate, not both",
    "simulate --workload x": "workload 'x' is unknown; allowed: conv, ",
    "simulate nowhere.yaml": "nowhere.yaml: No such file or directory",
}
SCENARIOS = {
    "engines: {coutn: 4}": "engines.coutn: unknown field; allowed: count, speeds, ",
    "engines: [1]": "engines: [1] is not a mapping of fields",
    "[1]": "a scenario is a mapping of fields, not [1]",
    "a: {": "not YAML: while parsing",
    "contenders: sal": "contenders: 'sal' is not a list",
    "contenders: [{name: a, scheduling: {}}, {name: a, scheduling: {}}]": "contenders: each needs a name of its own",
    "engines: {count: 2, outages: [{replica: 2, atSeconds: 1}]}": "engines.outages[0].replica: 2 is not allowed; allowed: 0 to 1",
}


def refusal(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        status = cli.main(command)
    except SystemExit as ended:  # argparse's
        status = ended.code
    assert status == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", OPTIONS)
def test_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert OPTIONS[command] in refusal(command.split(), capsys)


@pytest.mark.parametrize("text", SCENARIOS)
def test_scenarios(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(text)

    assert SCENARIOS[text] in refusal(["simulate", str(file), "--replicas", "2"], capsys)


def test_options_go_over_an_empty_block_of_a_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text("engines:\nrequests: 20\nseeds: 1\n")

    assert cli.main(["simulate", str(file), "--replicas", "2", "--policies", "sal", "--jobs", "1"]) == 0
    assert "2 replicas" in capsys.readouterr().out


def ended(*command: str) -> tuple[int, str]:
    """Exit status and last line of a command, which may change the logging of its process."""
    done = subprocess.run(
        [sys.executable, "-m", "halffull", *command], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr.splitlines()[-1]


def test_an_operator_without_a_cluster() -> None:
    status, line = ended("operator", "--router-image", "x", "--kubeconfig", "/nowhere/config")

    assert status == 2
    assert line == "halffull operator: /nowhere/config: No such file or directory"


@pytest.mark.parametrize("text", ["a: [", "words", "[1]", "clusters: []"])
def test_an_operator_with_a_wrong_kubeconfig(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    status, line = ended("operator", "--router-image", "x", "--port", "0", "--kubeconfig", str(file))

    assert status == 2
    assert line.startswith(f"halffull operator: {file}: ")


def test_an_operator_whose_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, line = ended("operator", "--router-image", "x", "--host", "127.0.0.1", "--port", port)

    assert status == 1
    assert line.startswith(f"halffull operator: --port {port}: ")


def test_an_engine_without_its_certificate() -> None:
    status, line = ended("engine", "--port", "0", "--ssl-certfile", "none.pem")

    assert status == 1
    assert line.startswith("halffull engine: --ssl-certfile none.pem with its key cannot be used: ")


def test_a_router_whose_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, line = ended("router", "--config", "x", "--host", "127.0.0.1", "--port", "0", "--admin-port", port)

    assert status == 1
    assert line.startswith(f"halffull router: --host 127.0.0.1 --port 0 --admin-port {port}: ")
