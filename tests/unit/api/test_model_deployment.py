"""Reading resources from text: defaults, several documents, and what is no resource at all."""

import json

import pytest

from halffull.api.model_deployment import DocumentError, load_documents
from wrong_documents import document

TEXT = """
apiVersion: halffull.dev/v1alpha1
kind: ModelDeployment
metadata: {name: chat, namespace: team, labels: {a: b}, annotations: {c: d}, creationTimestamp: null}
spec:
  model: m
  modelAliases: [a, b]
  engine:
    type: simulated
    template: {args: [--profile, a100], podTemplatePatch: {spec: {anything: [goes]}}}
  replicas: 3
  schedulingPolicyRef: {name: shared}
---
---
apiVersion: halffull.dev/v1alpha1
kind: SchedulingPolicy
metadata: {name: shared}
spec: {policy: power-of-two, parameters: {powerOfTwo: {choices: 3}, sal: {}}}
"""


def test_reads_every_resource_of_a_text():
    deployment, policy = load_documents(TEXT)

    assert deployment.key == ("team", "chat")
    assert deployment.spec.model_aliases == ("a", "b")
    assert deployment.spec.engine.template.args == ("--profile", "a100")
    assert deployment.spec.engine.template.pod_template_patch == {"spec": {"anything": ["goes"]}}
    assert deployment.spec.scheduling_policy_ref.name == "shared"
    assert policy.spec.parameters.power_of_two.choices == 3
    assert policy.spec.parameters.sal.memory_weight == 1.0
    assert policy.spec.parameters.limit is None


def test_reads_json_and_lists():
    items = [document("ModelDeployment", "one"), document("ModelDeployment", "two")]

    found = load_documents(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    assert [resource.metadata.name for resource in found] == ["one", "two"]


def test_a_dumped_resource_reads_back_the_same():
    for resource in load_documents(TEXT):
        assert load_documents(json.dumps(resource.dump())) == [resource]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "here.yaml: not YAML:"),
        ("just words", "here.yaml: a resource is a mapping with apiVersion, kind, metadata and spec, not 'just words'"),
        ("kind: Pod", "here.yaml: kind: 'Pod' is not allowed; allowed: ModelDeployment, SchedulingPolicy"),
        ("kind: [1]", "here.yaml: kind: [1] is not allowed"),
        ("spec: {}", "here.yaml: kind: required; allowed: ModelDeployment, SchedulingPolicy"),
        ("kind: ModelDeployment\nmetadata: 3", "here.yaml: ModelDeployment ?: metadata:"),
    ],
)
def test_what_is_no_resource_is_refused(text, said):
    with pytest.raises(DocumentError) as refused:
        load_documents(text, "here.yaml")

    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["", "---\n---\n", "kind: List\nitems: []"])
def test_nothing_is_nothing(text):
    assert load_documents(text) == []


def test_samples_are_right(root):
    for path in (root / "manifests" / "samples").iterdir():
        assert load_documents(path.read_text(), path.name)


def test_every_sample_says_what_it_shows(root):
    for path in (root / "manifests" / "samples").iterdir():
        assert path.read_text().startswith("# "), path.name


def test_one_line_for_one_wrong_item():
    wrong = document("ModelDeployment", engine={"template": None, "endpoints": ["no-port"]}, replicas=None)

    with pytest.raises(DocumentError) as refused:
        load_documents(json.dumps(wrong))

    assert len(refused.value.lines) == 1


def test_a_key_without_a_value_is_as_absent():
    empty = document("ModelDeployment", model="m", replicas=1)
    empty["spec"] |= {"router": None, "replicas": None, "tokenizer": None}
    empty["spec"]["engine"]["limits"] = None

    (found,), (plain,) = (load_documents(json.dumps(each)) for each in (empty, document("ModelDeployment", replicas=1)))

    assert found == plain
