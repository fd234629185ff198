"""`halffull up` as a process: engines, routers, edits of the files, deaths and ends. Real sockets on loopback."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
import yaml

from processes import running

START = 90.0


def document(name="llama", *, replicas=2, policy="round-robin", args=("--speedup", "20"), **spec):
    return {
        "apiVersion": "halffull.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": f"model-of-{name}",
            "engine": {"type": "simulated", "template": {"args": list(args)}},
            "replicas": replicas,
            "scheduling": {"policy": policy},
            **spec,
        },
    }


def policy_document(policy):
    return {
        "apiVersion": "halffull.dev/v1alpha1",
        "kind": "SchedulingPolicy",
        "metadata": {"name": "shared"},
        "spec": {"policy": policy},
    }


def write(file, *documents):
    """Replace the file as a careful editor does."""
    fresh = file.with_suffix(".fresh")
    fresh.write_text(yaml.safe_dump_all(documents))
    fresh.replace(file)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


class Up:
    """A `halffull up` that runs, and what it printed."""

    def __init__(self, eventually, *arguments):
        self._eventually = eventually
        self.process = subprocess.Popen(
            [sys.executable, "-m", "halffull", "up", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def text(self):
        return "\n".join(self.lines)

    def said(self, pattern, seconds=START):
        """Wait until a line matches; return the match."""
        found = []

        def look():
            found[:] = [match for line in list(self.lines) if (match := re.search(pattern, line))]
            assert found or self.process.poll() is None or self._reader.is_alive(), self.text
            return found

        try:
            self._eventually(look, seconds)
        except AssertionError as error:
            raise AssertionError(f"never said {pattern!r}:\n{self.text}") from error
        return found[-1]

    def serving(self, name="llama"):
        match = self.said(rf"^{name}: model \S+ at (\S+)/v1, .* admin (\S+)$")
        return match[1], match[2]

    def children(self):
        """Process id -> command line of the engines and routers."""
        table = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        )
        rows = [line.split(None, 2) for line in table.stdout.splitlines()]
        return {int(pid): args for pid, parent, args in rows if int(parent) == self.process.pid and "halffull" in args}

    def engines(self):
        return {pid: args for pid, args in self.children().items() if "halffull engine" in args}

    def end(self, number=signal.SIGTERM):
        """Send a signal; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join(10)
        return status


def alive(pids):
    living = set()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            living.add(pid)
    return living


@pytest.fixture
def up(eventually):
    """Starts `halffull up` with free ports; whatever it started is gone at the end."""
    started = []

    def start(*arguments, ports=("--port", "0", "--admin-port", "0")):
        started.append(Up(eventually, *arguments, *ports))
        return started[-1]

    yield start
    for each in started:
        children = each.children()
        each.end()
        each.process.stdout.close()
        eventually(lambda children=children: not alive(children))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "deployments.yaml"


@pytest.fixture
def load(eventually):
    """`halffull load` beside the test's body, from the first answer on; no request may fail."""

    def completed(admin):
        return get(f"{admin}/status")["requests"]["completed"]

    @contextlib.contextmanager
    def load(url, admin, model, *options):
        before = completed(admin)
        with loading(url, model, *options):
            eventually(lambda: completed(admin) > before + 2)
            yield
            before = completed(admin)
            eventually(lambda: completed(admin) > before + 2)

    return load


@contextlib.contextmanager
def loading(url, model, *options):
    options = options if "--trace" in options else ("--trace", "code", *options)
    command = [sys.executable, "-m", "halffull", "load", "--url", url, "--model", model, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=90)
        assert process.returncode == 0, out
        assert re.search(r"requests +[1-9]\d* sent .* 0 failed", out), out
    finally:
        process.kill()
        process.communicate()


def replicas(admin):
    return {page["name"]: page for page in get(f"{admin}/status")["replicas"]}


def ready(admin):
    return [page["name"] for page in get(f"{admin}/status")["replicas"] if page["state"] == "Ready"]


def test_a_file_becomes_an_endpoint_and_ctrl_c_ends_all(up, file, eventually):
    write(file, document())
    running_up = up(file)
    url, admin = running_up.serving()

    assert [model["id"] for model in get(f"{url}/v1/models")["data"]] == ["model-of-llama"]
    assert len(ready(admin)) == 2
    body = json.dumps({"model": "model-of-llama", "prompt": "one two three", "max_tokens": 5}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.headers["x-halffull-replica"] in replicas(admin)
        assert json.load(response)["usage"]["completion_tokens"] == 5
    children = running_up.children()
    assert len(children) == 3
    assert running_up.end(signal.SIGINT) == 0
    assert not alive(children)


def test_an_edited_policy_is_applied_under_load_and_no_request_fails(up, file, load):
    write(file, document())
    running_up = up(file)
    url, admin = running_up.serving()
    with load(url, admin, "model-of-llama", "--rate", "20"):
        for before, after in [("round-robin", "sal"), ("sal", "least-requests"), ("least-requests", "random")]:
            write(file, document(policy=after))
            running_up.said(rf"^llama: policy {before} -> {after} applied after")
            assert get(f"{admin}/status")["policy"] == after


def test_a_wrong_or_half_written_file_leaves_what_runs(up, file, eventually):
    write(file, document())
    running_up = up(file)
    _, admin = running_up.serving()

    write(file, document(policy="fastest"))
    running_up.said(r"spec.scheduling.policy: .*fastest.*round-robin")
    file.write_text(yaml.safe_dump(document())[:60])
    running_up.said(r"deployments.yaml: ")
    file.write_text("")
    running_up.said(r"no resources in it")
    file.unlink()
    running_up.said(r"No such file")
    assert get(f"{admin}/status")["policy"] == "round-robin"
    assert len(ready(admin)) == 2

    write(file, document(policy="sal"))
    running_up.said(r"policy round-robin -> sal applied")


def test_replicas_follow_and_answers_are_not_cut(up, file, load, eventually):
    write(file, document(replicas=1))
    running_up = up(file)
    url, admin = running_up.serving()
    with load(url, admin, "model-of-llama", "--rate", "20"):
        write(file, document(replicas=3))
        eventually(lambda: len(ready(admin)) == 3, START)
        assert len(running_up.engines()) == 3
        write(file, document(replicas=1))
        eventually(lambda: len(replicas(admin)) == 1, START)
        eventually(lambda: len(running_up.engines()) == 1, START)


def test_an_engine_that_is_not_wanted_any_more_finishes_its_answers(up, file, eventually):
    write(file, document(args=("--speedup", "1")))
    running_up = up(file)
    url, admin = running_up.serving()
    long = ["--trace", "synthetic", "--prompt-tokens", "9", "--output-tokens", "300", "--spread", "0.01"]
    with loading(url, "model-of-llama", *long, "--rate", "50", "--requests", "6"):
        eventually(lambda: [page["decoding"] for page in replicas(admin).values()] == [3, 3])
        write(file, document(replicas=1, args=("--speedup", "1")))
        eventually(lambda: {page["state"] for page in replicas(admin).values()} == {"Ready", "Draining"})
        assert sum(page["inFlight"] for page in replicas(admin).values()) == 6
        running_up.said(r"llama engine 1 .* has ended")
    eventually(lambda: len(replicas(admin)) == 1)


def test_a_new_template_rolls_out_and_no_request_fails(up, file, load, eventually):
    write(file, document())
    running_up = up(file)
    url, admin = running_up.serving()
    before = replicas(admin)
    with load(url, admin, "model-of-llama", "--rate", "20"):
        write(file, document(args=("--speedup", "21")))
        eventually(lambda: len(ready(admin)) == 2 and not before.keys() & replicas(admin).keys(), START)
        eventually(lambda: ["21" in args.split() for args in running_up.engines().values()] == [True, True], START)


def test_new_engines_that_do_not_start_leave_the_old_ones(up, file, eventually):
    write(file, document())
    running_up = up(file)
    _, admin = running_up.serving()
    before = replicas(admin)
    write(file, document(args=("--nonsense",)))

    running_up.said(r"--nonsense")
    assert ready(admin) == sorted(before)
    write(file, document(args=("--speedup", "20"), policy="sal"))
    running_up.said(r"policy round-robin -> sal applied")
    assert ready(admin) == sorted(before)


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
    ],
)
def test_a_wrong_file_is_refused(up, file, change, said):
    wrong = document()
    wrong["spec"] |= change
    write(file, wrong)
    running_up = up(file)

    running_up.said(said)
    assert running_up.process.wait(60) == 2


def free_pair() -> int:
    """A port that is free like its successor."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + 1))
                return port
