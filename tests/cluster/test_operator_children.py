"""The operator on a real API server: children appear, follow every edit, are repaired, and leave nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.control_plane import ControlPlane
from operators import Eventually, Seen, model_deployment, operator

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds"), pytest.mark.timeout(240)]

EVERYTHING = {
    "ConfigMap/a-router",
    "Deployment/a-engine",
    "Deployment/a-router",
    "PodDisruptionBudget/a-engine",
    "PodDisruptionBudget/a-router",
    "Role/a-router",
    "RoleBinding/a-router",
    "Secret/a-router",
    "Service/a",
    "Service/a-engines",
    "Service/a-peers",
    "ServiceAccount/a-router",
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory, cluster: ControlPlane, new_namespace) -> Iterator[Seen]:
    """A namespace with a running operator that may patch adopted workloads."""
    name = new_namespace()
    folder: Path = tmp_path_factory.mktemp("operator") / "run"
    with operator(folder, cluster, name, "--patch-adopted-workloads"):
        yield Seen(cluster, name)


def test_a_child_that_is_changed_or_deleted_is_put_right(seen: Seen, eventually: Eventually) -> None:
    seen.cluster.apply(model_deployment("b", seen.namespace))
    eventually(lambda: seen.get("pdb", "b-engine"))  # the last one to be applied
    eventually(lambda: seen.condition("b", "Ready")[1])

    seen.cluster.kubectl("-n", seen.namespace, "delete", "cm", "b-router")
    eventually(lambda: seen.config("b"))
    seen.cluster.kubectl("-n", seen.namespace, "scale", "deploy", "b-router", "--replicas=7")
    eventually(lambda: seen.get("deploy", "b-router")["spec"]["replicas"] == 2)
    seen.cluster.kubectl("-n", seen.namespace, "delete", "role", "b-router")
    eventually(lambda: seen.get("role", "b-router"))


EDITS = [
    ('{"model": "other"}', "cm", "c-router", lambda s, o: s.config("c")["model"] == "other"),
    ('{"modelAliases": ["x"]}', "cm", "c-router", lambda s, o: s.config("c")["modelAliases"] == ["x"]),
    ('{"resume": "never"}', "cm", "c-router", lambda s, o: s.config("c")["resume"] == "never"),
    ('{"tokenizer": {"bytesPerToken": 3}}', "cm", "c-router", lambda s, o: s.config("c")["tokenizer"]),
    (
        '{"scheduling": {"policy": "random"}}',
        "cm",
        "c-router",
        lambda s, o: s.config("c")["scheduling"]["policy"] == "random",
    ),
    ('{"replicas": 3}', "deploy", "c-engine", lambda s, o: o["spec"]["replicas"] == 3),
    (
        '{"engine": {"template": {"args": ["--profile", "h100"]}}}',
        "deploy",
        "c-engine",
        lambda s, o: o["spec"]["template"]["spec"]["containers"][0]["args"][:2] == ["--profile", "h100"],
    ),
    (
        '{"engine": {"template": {"gpus": 2}}}',
        "deploy",
        "c-engine",
        lambda s, o: o["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"},
    ),
    ('{"engine": {"port": 9000}}', "svc", "c-engines", lambda s, o: o["spec"]["ports"][0]["port"] == 9000),
    (
        '{"engine": {"limits": {"maxSequences": 7}}}',
        "cm",
        "c-router",
        lambda s, o: s.config("c")["engine"]["limits"] == {"maxSequences": 7},
    ),
    ('{"router": {"replicas": 5}}', "deploy", "c-router", lambda s, o: o["spec"]["replicas"] == 5),
    ('{"router": {"service": {"port": 8080}}}', "svc", "c", lambda s, o: o["spec"]["ports"][0]["port"] == 8080),
    ('{"router": {"service": {"type": "NodePort"}}}', "svc", "c", lambda s, o: o["spec"]["type"] == "NodePort"),
    (
        '{"router": {"image": "mine:1"}}',
        "deploy",
        "c-router",
        lambda s, o: o["spec"]["template"]["spec"]["containers"][0]["image"] == "mine:1",
    ),
    (
        '{"router": {"drain": {"seconds": 10}}}',
        "deploy",
        "c-router",
        lambda s, o: o["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 30,
    ),
    (
        '{"router": {"podTemplatePatch": {"spec": {"priorityClassName": "system-node-critical"}}}}',
        "deploy",
        "c-router",
        lambda s, o: o["spec"]["template"]["spec"]["priorityClassName"] == "system-node-critical",
    ),
]


def test_every_edit_reaches_its_child(seen: Seen, eventually: Eventually) -> None:
    seen.cluster.apply(model_deployment("c", seen.namespace))
    eventually(lambda: seen.get("pdb", "c-engine"))

    for patch, what, name, right in EDITS:
        seen.patch("c", patch)
        eventually(lambda what=what, name=name, right=right: right(seen, seen.get(what, name)))
        generation = seen.get("mdep", "c")["metadata"]["generation"]
        eventually(lambda g=generation: seen.get("mdep", "c")["status"]["observedGeneration"] == g)


def test_a_change_of_kind_of_engines_prunes_what_is_too_many(seen: Seen, eventually: Eventually) -> None:
    seen.cluster.apply(model_deployment("d", seen.namespace))
    eventually(lambda: seen.get("pdb", "d-engine"))

    seen.cluster.apply(model_deployment("d", seen.namespace, engine={"type": "vllm", "endpoints": ["10.9.9.9:8000"]}))

    eventually(
        lambda: not {"Deployment/d-engine", "Service/d-engines", "PodDisruptionBudget/d-engine"} & seen.children("d")
    )
    eventually(lambda: seen.config("d")["engine"].get("endpoints") == ["10.9.9.9:8000"])
    eventually(lambda: [row["state"] for row in seen.get("mdep", "d")["status"]["replicas"]] == ["Down"])


def test_kubectl_scale_and_the_columns(seen: Seen, eventually: Eventually) -> None:
    seen.cluster.apply(model_deployment("e", seen.namespace))
    eventually(lambda: seen.condition("e", "Ready")[1])

    seen.cluster.kubectl("-n", seen.namespace, "scale", "mdep", "e", "--replicas=4")

    eventually(lambda: seen.get("deploy", "e-engine")["spec"]["replicas"] == 4)
    eventually(lambda: seen.get("mdep", "e")["status"]["summary"]["ready"] == "0/4")
    row = seen.cluster.kubectl("-n", seen.namespace, "get", "mdep", "e").splitlines()[1].split()
    assert row[:4] == ["e", "m", "sal", "0/4"]


def test_an_object_of_somebody_else_is_left_alone(seen: Seen, eventually: Eventually) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "f", "namespace": seen.namespace},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    seen.cluster.apply(theirs)
    seen.cluster.apply(model_deployment("f", seen.namespace))

    eventually(lambda: seen.condition("f", "Ready") == ("False", "NameTaken"))
    assert seen.get("svc", "f")["spec"]["selector"] == {"app": "theirs"}
    eventually(lambda: seen.get("deploy", "f-router"))


def test_a_child_that_the_api_server_refuses_is_told(seen: Seen, eventually: Eventually) -> None:
    """A field that pods do not have, and a value that they may not have: both are wrong only where they are applied."""
    for name, patch in (("h", {"spec": {"nope": 1}}), ("i", {"spec": {"restartPolicy": "Never"}})):
        seen.cluster.apply(model_deployment(name, seen.namespace, router={"podTemplatePatch": patch}))

        eventually(lambda name=name: seen.condition(name, "Ready") == ("False", "ChildRefused"))
        message = next(c for c in seen.get("mdep", name)["status"]["conditions"] if c["type"] == "Ready")["message"]
        assert f"Deployment {name}-router" in message
        assert next(iter(patch["spec"])) in message

        seen.cluster.apply(model_deployment(name, seen.namespace))
        eventually(lambda name=name: seen.get("deploy", f"{name}-router"))
        eventually(lambda name=name: seen.condition(name, "Ready") == ("False", "NoRouterReady"))


def test_adopted_workloads_get_the_sidecar_and_lose_it(seen: Seen, eventually: Eventually) -> None:
    pod = {
        "metadata": {"labels": {"app": "theirs"}},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{"name": "server", "image": "vllm:1", "args": ["--max-num-seqs", "32"]}],
        },
    }
    selector = {"matchLabels": {"app": "theirs"}}
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "theirs", "namespace": seen.namespace},
        "spec": {"replicas": 1, "selector": selector, "template": pod},
    }
    seen.cluster.apply(theirs)
    eventually(lambda: seen.cluster.get("-n", seen.namespace, "pods", "-l", "app=theirs")["items"])
    seen.cluster.apply(
        model_deployment(
            "g",
            seen.namespace,
            engine={"type": "vllm", "selector": selector},
            router={"placement": "Sidecar"},
        )
    )

    def containers():
        return seen.get("deploy", "theirs")["spec"]["template"]["spec"].get("initContainers", [])

    eventually(lambda: [c["name"] for c in containers()] == ["halffull-router"])
    assert containers()[0]["restartPolicy"] == "Always"
    mounts = [mount["mountPath"] for mount in containers()[0]["volumeMounts"]]
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in mounts, "their pods get no token by themselves"
    eventually(lambda: seen.config("g")["engine"]["limits"] == {"maxSequences": 32})
    eventually(lambda: len(seen.get("rolebinding", "g-router")["subjects"]) == 2)
    assert "Deployment/g-router" not in seen.children("g")

    seen.cluster.apply({**theirs, "metadata": {**theirs["metadata"], "annotations": {"edited": "by-its-owner"}}})
    assert [c["name"] for c in containers()] == ["halffull-router"]
    seen.cluster.kubectl("-n", seen.namespace, "delete", "mdep", "g")

    eventually(lambda: containers() == [])
    template = seen.get("deploy", "theirs")["spec"]["template"]
    assert template["metadata"]["labels"] == {"app": "theirs"}
    assert "volumes" not in template["spec"]


def test_a_name_that_is_used_anew_gets_children_of_its_own(seen: Seen, eventually: Eventually) -> None:
    seen.cluster.apply(model_deployment("j", seen.namespace))
    eventually(lambda: seen.get("pdb", "j-engine"))

    seen.cluster.kubectl("-n", seen.namespace, "delete", "mdep", "j")
    seen.cluster.apply(model_deployment("j", seen.namespace, model="new"))  # its predecessor's children are still there

    uid = seen.get("mdep", "j")["metadata"]["uid"]
    for what, name in (("cm", "j-router"), ("deploy", "j-engine"), ("secret", "j-router"), ("pdb", "j-engine")):
        eventually(
            lambda what=what, name=name: (
                [o["uid"] for o in (seen.get(what, name) or {"metadata": {}})["metadata"].get("ownerReferences", ())]
                == [uid]
            ),
            seconds=90,
        )
    eventually(lambda: seen.config("j")["model"] == "new")
    eventually(lambda: seen.condition("j", "Ready") == ("False", "NoRouterReady"))


def test_every_child_is_made_and_goes_with_its_owner(seen: Seen, eventually: Eventually) -> None:
    seen.cluster.apply(model_deployment("a", seen.namespace))

    eventually(lambda: seen.children("a") == EVERYTHING)
    eventually(lambda: seen.condition("a", "RouterReady") == ("False", "NoRouterReady"))
    config = seen.config("a")
    assert config["scheduling"]["policy"] == "sal"
    assert config["engine"]["service"] == "a-engines"
    assert seen.get("mdep", "a")["metadata"].get("finalizers", []) == []
    assert "annotations" not in seen.get("mdep", "a")["metadata"] or all(
        "kopf" not in key for key in seen.get("mdep", "a")["metadata"]["annotations"]
    )

    seen.cluster.kubectl("-n", seen.namespace, "delete", "mdep", "a")

    # the garbage collector looks for new kinds every 30 s, and this one may be newer than that
    eventually(lambda: seen.children("a") == set(), seconds=90)
