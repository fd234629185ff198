"""Files of `halffull up`: read whole or not at all, numbered like the API server does, and taken once they rest."""

import pytest
import yaml

from halffull.api.errors import DocumentError
from halffull.local.documents import Files

TEMPLATE = {"type": "simulated", "template": {}}


def deployment(name="a", **spec):
    return {"kind": "ModelDeployment", "metadata": {"name": name}, "spec": {"model": "m", "engine": TEMPLATE, **spec}}


def policy(name="p", policy="sal"):
    return {"kind": "SchedulingPolicy", "metadata": {"name": name}, "spec": {"policy": policy}}


@pytest.fixture
def write(tmp_path):
    def write(name, *documents):
        path = tmp_path / name
        path.write_text(yaml.safe_dump_all([{"apiVersion": "halffull.dev/v1alpha1", **each} for each in documents]))
        return path

    return write


def test_references_are_resolved_across_files(write):
    one = write("one.yaml", deployment(schedulingPolicyRef={"name": "p"}), deployment("b"))
    two = write("two.yaml", policy(policy="random"))
    wanted = {each.deployment.metadata.name: each for each in Files([one, two]).load()}

    assert wanted["a"].policy.spec.policy == "random"
    assert wanted["b"].policy is None
    assert wanted["a"].missing_policy is None
    assert wanted["b"].missing_policy is None


def test_a_policy_of_another_namespace_is_not_the_one(write):
    other = policy() | {"metadata": {"name": "p", "namespace": "elsewhere"}}
    (wanted,) = Files([write("one.yaml", deployment(schedulingPolicyRef={"name": "p"}), other)]).load()

    assert wanted.missing_policy == "p"


def test_generations_count_changes_of_the_spec(write):
    files = Files([write("one.yaml", deployment("a"), deployment("b"))])
    seen = []
    for replicas in (1, 1, 2, 1):
        write("one.yaml", deployment("a", replicas=replicas), deployment("b"))
        seen.append([each.deployment.metadata.generation for each in files.load()])

    assert seen == [[1, 1], [1, 1], [2, 1], [3, 1]]


def test_every_wrong_file_is_named_and_nothing_is_taken(write):
    good = write("good.yaml", deployment())
    bad = write("bad.yaml", deployment("b", replicas=-1), deployment("c", model=7))
    with pytest.raises(DocumentError) as caught:
        Files([good, bad]).load()

    assert [line.split(": ")[:3] for line in caught.value.lines] == [
        [str(bad), "ModelDeployment b", "spec.replicas"],
        [str(bad), "ModelDeployment c", "spec.model"],
    ]


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([], "no resources in it"),
        ([policy()], "no ModelDeployment in it"),
        ([deployment(), deployment()], "ModelDeployment a is there twice"),
        (
            [deployment(engine={"type": "simulated", "selector": {"matchLabels": {"a": "b"}}})],
            "spec.engine.selector: pods are in a cluster",
        ),
        (
            [deployment(engine={"type": "vllm", "template": {"image": "i"}})],
            "spec.engine.template.command: is needed to start vllm",
        ),
        (
            [
                deployment(
                    engine={
                        "type": "simulated",
                        "template": {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]},
                    }
                )
            ],
            "spec.engine.template.env: valueFrom needs a cluster",
        ),
    ],
)
def test_what_cannot_run_here_is_refused(write, documents, said):
    with pytest.raises(DocumentError) as caught:
        Files([write("one.yaml", *documents)]).load()

    assert said in str(caught.value)


def test_a_change_is_taken_once_two_looks_agree(write):
    path = write("one.yaml", deployment())
    files = Files([path])
    files.load()
    assert not files.changed()

    for replicas in (2, 30, 400):
        write("one.yaml", deployment(replicas=replicas))
        assert not files.changed()
    assert files.changed()
    files.load()
    assert not files.changed()


def test_a_wrong_state_is_not_looked_at_again_and_again(write):
    path = write("one.yaml", deployment())
    files = Files([path])
    files.load()
    path.unlink()
    assert not files.changed()
    assert files.changed()
    with pytest.raises(DocumentError, match=r"one\.yaml"):
        files.load()
    assert not files.changed()
    write("one.yaml", deployment())
    assert not files.changed()
    assert files.changed()
