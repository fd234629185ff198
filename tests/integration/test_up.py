"""`halffull up` as a process: from a file to an endpoint, and edits of the file under load. Real sockets on loopback."""

import json
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import yaml

from ups import START, alive, document, get, loading, ready, replicas, write


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


def test_from_zero_a_request_waits_for_the_first_engine(up, file, eventually):
    queue = {"queue": {"noReplicaSeconds": 60, "timeoutSeconds": 60}}
    nothing, one = document(replicas=0), document(replicas=1)
    for each in (nothing, one):
        each["spec"]["scheduling"] |= queue
    write(file, nothing)
    url, admin = up(file).serving()
    body = json.dumps({"model": "model-of-llama", "prompt": "one two three", "max_tokens": 5}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(urllib.request.urlopen, request, timeout=90)
        eventually(lambda: get(f"{admin}/status")["queue"]["requests"] == 1)
        write(file, one)
        with answer.result() as response:
            assert json.load(response)["usage"]["completion_tokens"] == 5


def test_a_replica_that_the_file_drains_gets_nothing_new(up, file, eventually):
    write(file, document())
    running_up = up(file)
    url, admin = running_up.serving()
    drained = ready(admin)[0]
    one = document()
    one["spec"]["engine"]["drain"] = [drained]
    write(file, one)

    eventually(lambda: replicas(admin)[drained]["state"] == "Draining")
    body = json.dumps({"model": "model-of-llama", "prompt": "one two three", "max_tokens": 2}).encode()
    for _ in range(4):
        request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.headers["x-halffull-replica"] != drained
    write(file, document())
    eventually(lambda: drained in ready(admin))
