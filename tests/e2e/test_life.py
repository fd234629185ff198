"""The life of a ModelDeployment on a real cluster, as its user sees it: real pods, Services and traffic."""

from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.live import NAMESPACE, RELEASE_NAMESPACE, Cluster, CommandError, Load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAME = "simulated"
CRDS = {"modeldeployments.halffull.dev", "schedulingpolicies.halffull.dev"}


def test_from_install_to_uninstall(
    cluster: Cluster, release: list[str], load: Callable[..., Load], root: Path, timings: dict[str, float]
) -> None:
    sample = str(root / "manifests" / "samples" / "simulated.yaml")
    traffic = (NAME, "--model", "llama-3.1-8b", "--rate", "5")

    # apply: four engines and two routers come up, and status says so
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", sample)
    timings["apply to Ready"] = cluster.wait("all conditions are True", lambda: cluster.is_well(NAME))
    cluster.wait("four replicas ready", lambda: cluster.row(NAME)["READY"] == "4/4")
    row = cluster.row(NAME)
    assert (row["MODEL"], row["POLICY"], row["ROUTERS"]) == ("llama-3.1-8b", "sal", "2/2"), row

    # a request, and then traffic: every replica gets its share
    figures = load(*traffic).all_answered()
    engines = set(cluster.pods(NAME, "engine"))
    assert set(figures["replicas"]) == engines

    # edit the policy under load, there and back
    running = load(*traffic)
    for policy in ("round-robin", "power-of-two", "least-requests", "random", "sal"):
        timings[f"policy {policy} applied"] = cluster.set_policy(NAME, policy)
        assert [router["policy"] for router in cluster.status(NAME)["routers"]] == [policy, policy]
        assert cluster.row(NAME)["POLICY"] == policy
    running.all_answered()

    # a wrong policy is refused, and nothing changes
    with pytest.raises(CommandError, match="Unsupported value"):
        cluster.set_policy(NAME, "guess")
    assert cluster.row(NAME)["POLICY"] == "sal"

    # delete an engine pod under load: status tells, another one comes
    running = load(*traffic)
    victim = cluster.pods(NAME, "engine")[0]
    cluster.kubectl("delete", "pod", "-n", NAMESPACE, victim, "--wait=false")
    cluster.wait("status tells that a replica leaves", lambda: cluster.replica_states(NAME).get(victim) != "Ready")
    timings["engine pod replaced"] = cluster.wait("four replicas", lambda: cluster.row(NAME)["READY"] == "4/4")
    assert victim not in cluster.pods(NAME, "engine")
    running.all_answered()

    # kill an engine pod under load, in the middle of its streams: others go on with them
    running = load(*traffic)
    victim = cluster.pods(NAME, "engine")[0]
    cluster.wait("it has requests", lambda: cluster.in_flight(NAME, victim) > 0)
    cluster.kubectl("delete", "pod", "-n", NAMESPACE, victim, "--force", "--grace-period=0")
    timings["engine pod killed, replaced"] = cluster.wait("four replicas", lambda: cluster.row(NAME)["READY"] == "4/4")
    running.all_answered()

    # restart the routers under load
    before = cluster.pods(NAME, "router")
    running = load(*traffic)
    cluster.kubectl("rollout", "restart", "-n", NAMESPACE, f"deployment/{NAME}-router")
    cluster.kubectl("rollout", "status", "-n", NAMESPACE, f"deployment/{NAME}-router", "--timeout=3m")
    assert not set(before) & set(cluster.pods(NAME, "router"))
    running.all_answered()
    cluster.wait("all conditions are True", lambda: cluster.is_well(NAME))

    # both routers share their books, over the port of their pods
    cluster.wait("routers are peers", lambda: cluster.peers(NAME) == [1, 1])

    # restart the engines under load, one after the other
    before = cluster.pods(NAME, "engine")
    running = load(*traffic)
    cluster.kubectl("rollout", "restart", "-n", NAMESPACE, f"deployment/{NAME}-engine")
    timings["all engines restarted"] = cluster.timed(
        lambda: cluster.kubectl("rollout", "status", "-n", NAMESPACE, f"deployment/{NAME}-engine", "--timeout=4m")
    )
    assert not set(before) & set(cluster.pods(NAME, "engine"))
    running.all_answered()
    cluster.wait("all conditions are True", lambda: cluster.is_well(NAME))

    # kill the operator under load, without a warning: routers notice nothing, its successor goes on
    running = load(*traffic)
    cluster.kubectl(
        *("delete", "pod", "-n", RELEASE_NAMESPACE, "-l", "app.kubernetes.io/component=operator"),
        *("--force", "--grace-period=0"),
    )
    timings["policy applied after the operator was killed"] = cluster.set_policy(NAME, "power-of-two")
    running.all_answered()
    cluster.set_policy(NAME, "sal")

    # upgrade the chart under load: only the operator restarts
    pods = cluster.pods(NAME, "engine") + cluster.pods(NAME, "router")
    running = load(*traffic)
    timings["helm upgrade"] = cluster.timed(
        lambda: cluster.helm("upgrade", *release, "--set", "logLevel=debug", "--set", "replicas=1")
    )
    running.all_answered()
    assert cluster.pods(NAME, "engine") + cluster.pods(NAME, "router") == pods
    timings["policy applied by the new operator"] = cluster.set_policy(NAME, "least-requests")
    assert cluster.is_well(NAME)

    # uninstall: the operator goes, routers serve on
    timings["helm uninstall"] = cluster.timed(
        lambda: cluster.helm("uninstall", "halffull", "-n", RELEASE_NAMESPACE, "--wait")
    )
    load(*traffic).all_answered()
    assert cluster.pods(NAME, "engine") + cluster.pods(NAME, "router") == pods

    # delete: nothing but the CRDs is left
    cluster.kubectl("delete", "-n", NAMESPACE, "mdep", NAME)
    timings["all children gone"] = cluster.wait("the namespace is empty", lambda: not cluster.objects())
    left = cluster.kubectl("get", "clusterrole,clusterrolebinding,crd", "-o", "name").split()
    assert {name.split("/")[-1] for name in left if "halffull" in name} == CRDS
    kinds = "all,cm,secret,sa,role,rolebinding,pdb,networkpolicy,lease"
    rest = cluster.kubectl("-n", RELEASE_NAMESPACE, "get", kinds, "-o", "name").split()
    assert set(rest) == {"configmap/kube-root-ca.crt", "serviceaccount/default"}
