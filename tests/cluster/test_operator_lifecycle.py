"""The operator comes and goes: restarts, upgrades, two of them, two namespaces, and an API server that is away."""

import json
import time
import urllib.request
from pathlib import Path

import pytest

from cluster.control_plane import ControlPlane
from operators import Eventually, Seen, model_deployment, operator

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds"), pytest.mark.timeout(240)]


def versions(seen: Seen) -> dict[str, str]:
    """resourceVersion of every object that the operator writes."""
    items = seen.cluster.get("-n", seen.namespace, "mdep,spol,deploy,svc,cm,pdb,sa,role,rolebinding,secret")["items"]
    return {f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["resourceVersion"] for i in items}


def template(seen: Seen, name: str) -> str:
    """The pod template of a Deployment, as text."""
    return json.dumps(seen.get("deploy", name)["spec"]["template"], sort_keys=True)


def metric(url: str, name: str) -> float:
    """A metric of the operator without labels."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), -1.0)


def test_a_restart_changes_nothing_and_catches_up(
    tmp_path: Path, cluster: ControlPlane, namespace: str, eventually: Eventually
) -> None:
    seen = Seen(cluster, namespace)
    with operator(tmp_path / "first", cluster, namespace):
        cluster.apply(model_deployment("a", namespace), model_deployment("b", namespace))
        eventually(lambda: seen.condition("a", "Ready")[1] and seen.condition("b", "Ready")[1])
        eventually(lambda: seen.get("mdep", "a")["status"]["replicaCounts"]["total"] == 1)
        eventually(lambda: seen.get("mdep", "b")["status"]["replicaCounts"]["total"] == 1)
    before = versions(seen)
    seen.patch("b", '{"scheduling": {"policy": "random"}}')

    with operator(tmp_path / "second", cluster, namespace) as process:
        eventually(lambda: seen.config("b")["scheduling"]["policy"] == "random")
        eventually(lambda: seen.get("mdep", "b")["status"]["policy"] == "random")
        # reconciled twice: at the start, and after the first round of scrapes
        eventually(lambda: metric(process.url, "halffull_operator_reconciles_total") >= 5)
        after = versions(seen)
    assert {name for name in before if before[name] != after[name]} == {"ModelDeployment/b", "ConfigMap/b-router"}


def test_an_upgrade_leaves_engine_pods_alone(
    tmp_path: Path, cluster: ControlPlane, namespace: str, eventually: Eventually
) -> None:
    seen = Seen(cluster, namespace)
    sidecar = {"router": {"placement": "Sidecar"}}
    with operator(tmp_path / "old", cluster, namespace):
        cluster.apply(model_deployment("a", namespace), model_deployment("s", namespace, **sidecar))
        eventually(lambda: seen.get("pdb", "a-engine") and seen.get("pdb", "s-engine"))
    before = template(seen, "a-engine"), template(seen, "s-engine")
    assert '"image": "halffull:test"' in before[0]

    with operator(tmp_path / "new", cluster, namespace, "--router-image", "halffull:new"):
        eventually(lambda: '"image": "halffull:new"' in template(seen, "a-router"))
        eventually(lambda: seen.condition("s", "Ready")[1])
        assert (template(seen, "a-engine"), template(seen, "s-engine")) == before

        seen.patch("s", '{"engine": {"template": {"args": ["--profile", "h100"]}}}')
        eventually(lambda: template(seen, "s-engine") != before[1])  # these pods roll anyway

    assert template(seen, "s-engine").count("halffull:new") == 2


def test_the_lease_is_taken_over(tmp_path: Path, cluster: ControlPlane, namespace: str, eventually: Eventually) -> None:
    seen = Seen(cluster, namespace)
    with operator(tmp_path / "standby", cluster, namespace) as one:
        eventually(lambda: metric(one.url, "halffull_operator_leader") == 1)
        with operator(tmp_path / "other", cluster, namespace) as two:
            holder = seen.get("lease", "halffull-operator")["spec"]["holderIdentity"]
            assert metric(two.url, "halffull_operator_leader") == 0

            one.process.kill()  # without giving the Lease back
            killed = time.monotonic()
            cluster.apply(model_deployment("a", namespace))
            eventually(lambda: seen.config("a"), seconds=60)

            # 20 s by design; the rest is a machine that does other work at the same time
            assert time.monotonic() - killed < 30
            lease = seen.get("lease", "halffull-operator")["spec"]
            assert lease["holderIdentity"] != holder
            assert lease["leaseTransitions"] == 1
            one.process.wait()
            one.process.returncode = 0  # this end was ours
    assert seen.get("lease", "halffull-operator")["spec"]["holderIdentity"] == ""


def test_only_the_namespaces_that_are_named(
    tmp_path: Path, cluster: ControlPlane, new_namespace, eventually: Eventually
) -> None:
    one, two, other = new_namespace(), new_namespace(), new_namespace()
    for namespace in (one, two, other):
        cluster.apply(model_deployment("same-name", namespace))

    with operator(tmp_path / "run", cluster, one, "--namespace", two):
        for namespace in (one, two):
            seen = Seen(cluster, namespace)
            eventually(lambda seen=seen: seen.condition("same-name", "Ready")[1])
            assert seen.config("same-name")["modelDeployment"]["namespace"] == namespace
    assert Seen(cluster, other).children("same-name") == set()


def test_an_api_server_that_is_gone_for_30_s(
    tmp_path: Path, cluster: ControlPlane, namespace: str, eventually: Eventually
) -> None:
    seen = Seen(cluster, namespace)
    with operator(tmp_path / "run", cluster, namespace) as process:
        cluster.apply(model_deployment("a", namespace))
        eventually(lambda: seen.condition("a", "Ready")[1])

        with cluster.without_api_server():
            time.sleep(30)  # the length of the outage is what is tested
            assert process.process.poll() is None, process.log.read_text()
            assert metric(process.url, "halffull_operator_leader") == 0  # nobody else could lead: it waits

        seen.patch("a", '{"scheduling": {"policy": "random"}}')
        eventually(lambda: seen.config("a")["scheduling"]["policy"] == "random", seconds=60)
        assert process.process.poll() is None
