"""`halffull up` when things die, do not start, or clash; several deployments; fixed endpoints."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from processes import running
from ups import START, alive, document, free_pair, get, policy_document, ready, replicas, write


def test_children_that_die_are_started_again(up, file, eventually):
    write(file, document())
    running_up = up(file)
    url, admin = running_up.serving()
    names = sorted(replicas(admin))

    os.kill(next(iter(running_up.engines())), signal.SIGKILL)
    running_up.said(r"llama engine \d .* ended with status -9; starting it again")
    running_up.said(r"llama engine \d .* serves again")
    eventually(lambda: ready(admin) == names, START)

    os.kill(next(pid for pid, args in running_up.children().items() if "halffull router" in args), signal.SIGKILL)
    running_up.said(r"llama router ended with status -9")
    running_up.said(r"llama router serves again")
    eventually(lambda: ready(admin) == names, START)
    assert get(f"{url}/v1/models")["data"]


def test_nothing_outlives_a_killed_up(up, file, eventually):
    write(file, document())
    running_up = up(file)
    running_up.serving()
    children = running_up.children()

    assert running_up.end(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: not alive(children))


def test_an_engine_that_does_not_start_ends_all_and_says_why(up, file, eventually):
    write(file, document(args=("--max-model-len", "99999999")))
    running_up = up(file)

    running_up.said(r"99999999 does not fit")
    assert running_up.process.wait(60) == 1
    assert not running_up.children()


def test_a_port_in_use_is_said(up, file):
    write(file, document())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        running_up = up(file, ports=("--port", port, "--admin-port", "0"))
        assert running_up.process.wait(START) == 1
    running_up.said("llama router ended with status .* before it served")
    running_up.said(port)


def test_two_deployments_share_a_policy_on_consecutive_ports(up, tmp_path, eventually):
    shared = {"schedulingPolicyRef": {"name": "shared"}}
    deployments, policies = tmp_path / "deployments.json", tmp_path / "policies.yaml"
    both = [document(name, replicas=1, **shared) for name in ("first", "second")]
    for each in both:
        del each["spec"]["scheduling"]
    deployments.write_text(json.dumps({"kind": "List", "items": both}))
    write(policies, policy_document("least-requests"))
    port, admin_port = free_pair(), free_pair()
    running_up = up(deployments, policies, ports=("--port", str(port), "--admin-port", str(admin_port)))
    found = [running_up.serving(name) for name in ("first", "second")]

    assert [url.rpartition(":")[2] for url, _ in found] == [str(port), str(port + 1)]
    assert [admin.rpartition(":")[2] for _, admin in found] == [str(admin_port), str(admin_port + 1)]
    write(policies, policy_document("power-of-two"))
    for (_, admin), name in zip(found, ("first", "second"), strict=True):
        running_up.said(rf"^{name}: policy least-requests -> power-of-two applied")
        status = get(f"{admin}/status")
        assert status["policy"] == "power-of-two"
        assert status["config"]["schedulingPolicy"]["generation"] == 2
        assert status["config"]["modelDeployment"]["generation"] == 1

    write(policies, policy_document("sal") | {"metadata": {"name": "other"}})
    running_up.said(r"^first: no file has the SchedulingPolicy shared; the last one stays")
    assert get(f"{found[0][1]}/status")["policy"] == "power-of-two"

    deployments.write_text(json.dumps(both[0]))
    running_up.said(r"^second: no longer in the files")
    eventually(lambda: len(running_up.children()) == 2)
    assert get(f"{found[0][0]}/v1/models")["data"]
    deployments.write_text(json.dumps({"kind": "List", "items": both}))
    eventually(lambda: len(running_up.children()) == 4, START)


def test_a_deployment_that_is_added_and_does_not_start_leaves_the_others(up, file, eventually):
    write(file, document("first", replicas=1))
    running_up = up(file)
    url, _ = running_up.serving("first")
    write(file, document("first", replicas=1), document("second", args=["--nonsense"]))
    running_up.said(r"second engine \d .* ended with status 2 before it served")
    assert get(f"{url}/v1/models")["data"]

    write(file, document("first", replicas=1, policy="sal"), document("second", replicas=1))
    running_up.serving("second")
    running_up.said(r"^first: policy round-robin -> sal applied")
    assert running_up.end() == 0


def test_a_deployment_for_which_there_is_no_place_leaves_the_others(up, file, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    write(file, document("first", replicas=1))
    running_up = up(file)
    url, _ = running_up.serving("first")
    for folder in (tmp_path / "scratch").iterdir():  # as one who makes room on a full disk
        shutil.rmtree(folder)

    write(file, document("first", replicas=1, policy="sal"), document("second", replicas=1))
    running_up.said("^second does not start: .*No such file")
    running_up.said("^first: what is new cannot be written")
    assert get(f"{url}/v1/models")["data"]
    assert running_up.end() == 0


def test_output_that_nobody_can_take_stops_nothing(file, eventually):
    write(file, document(replicas=1))
    ports = [str(free_pair()), str(free_pair())]
    command = [sys.executable, "-m", "halffull", "up", str(file), "--port", ports[0], "--admin-port", ports[1]]
    with Path("/dev/full").open("wb") as full, subprocess.Popen(command, stdout=full, stderr=full) as running_up:

        def serves():
            assert running_up.poll() is None
            with contextlib.suppress(OSError):
                return ready(f"http://127.0.0.1:{ports[1]}")

        eventually(serves, START)
        write(file, document(replicas=2))
        eventually(lambda: len(serves() or ()) == 2, START)
        running_up.terminate()
        assert running_up.wait(START) == 0


def test_engines_at_fixed_endpoints_are_only_routed_to(up, file, load, tmp_path, eventually):
    with running(tmp_path / "engine", "engine", "--model", "m", "--speedup", "20") as engine:
        spec = document()
        spec["spec"] |= {"model": "m", "replicas": 1}
        spec["spec"]["engine"] = {"type": "simulated", "endpoints": [f"127.0.0.1:{engine.port}"]}
        write(file, spec)
        running_up = up(file)
        url, admin = running_up.serving()

        eventually(lambda: ready(admin) == [f"127.0.0.1:{engine.port}"])
        assert len(running_up.children()) == 1
        with load(url, admin, "m", "--rate", "20"):
            eventually(lambda: get(f"{admin}/status")["requests"]["completed"] > 10)
        assert running_up.end() == 0
        assert engine.process.poll() is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine": {"type": "simulated", "selector": {"matchLabels": {"a": "b"}}}, "replicas": 1}, "engine.selector"),
        ({"engine": {"type": "vllm", "template": {"image": "vllm"}}}, r"template.command: .*\[vllm, serve\]"),
        ({"scheduling": {"policy": "fastest"}}, r"policy: .*sal"),
        ({"router": {"tls": {"secretRef": {"name": "a"}}}}, "router.tls: there are no Secrets"),
        ({"router": {"adminTokenSecretRef": {"name": "a"}}}, "router.adminTokenSecretRef: there are no Secrets"),
    ],
)
def test_a_wrong_file_is_refused(up, file, change, said):
    wrong = document()
    wrong["spec"] |= change
    write(file, wrong)
    running_up = up(file)

    running_up.said(said)
    assert running_up.process.wait(60) == 2
