"""The document from operator to router: its hash, and what a router does with a newer or a wrong one."""

import json

import pytest

from halffull.api.errors import DocumentError
from halffull.api.router_config import (
    Balance,
    EngineTarget,
    ReplicaBalance,
    RouterConfig,
    Source,
    parse_router_config,
)
from halffull.api.scheduling import Scheduling


@pytest.fixture
def config() -> RouterConfig:
    document = {"policy": "power-of-two", "parameters": {"powerOfTwo": {"choices": 3}}}
    return RouterConfig(
        model_deployment=Source(namespace="team", name="chat", uid="u", generation=3),
        scheduling_policy=Source(namespace="team", name="shared", uid="v", generation=2),
        model="m",
        model_aliases=("a",),
        engine=EngineTarget(type="simulated", service="chat-engines"),
        scheduling=Scheduling.model_validate(document),
    ).seal()


def with_change(config, *path, value):
    document = json.loads(config.to_json())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(document)


def test_reads_back_what_was_written(config):
    assert parse_router_config(config.to_json()) == (config, [])


def test_the_hash_is_of_the_content(config):
    assert len(config.hash) == 64
    assert config.content_hash() == config.hash
    assert config.seal() == config
    assert config.model_copy(update={"model": "n"}).content_hash() != config.hash


def test_weights_are_not_part_of_the_hash(config):
    balance = Balance(renewed=7, replicas={"r": ReplicaBalance(weight=0.5, reason="slow")})

    assert config.model_copy(update={"balance": balance}).seal().hash == config.hash


def test_the_same_document_is_the_same_text(config):
    text = config.to_json()
    shuffled = json.dumps(dict(reversed(json.loads(text).items())))

    assert parse_router_config(shuffled)[0].to_json() == text


@pytest.mark.parametrize(
    "path",
    [
        ("next",),
        ("engine", "next"),
        ("scheduling", "next"),
        ("scheduling", "queue", "next"),
        ("scheduling", "parameters", "nextPolicy"),
        ("scheduling", "parameters", "powerOfTwo", "next"),
        ("router", "limits", "next"),
        ("balance", "next"),
    ],
)
@pytest.mark.parametrize("value", [1, None, {"deep": [1]}])
def test_unknown_fields_of_a_newer_operator_are_left_out_with_a_warning(config, path, value):
    read, unknown = parse_router_config(with_change(config, *path, value=value))

    assert read == config
    assert unknown == [".".join(path)]


def test_unknown_fields_of_replicas_are_left_out(config):
    text = with_change(config, "balance", "replicas", value={"10.0.0.7:8000": {"weight": 0.5, "next": 1}})

    read, unknown = parse_router_config(text)

    assert read.balance.replicas["10.0.0.7:8000"].weight == 0.5
    assert unknown == ["balance.replicas.10.0.0.7:8000.next"]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("scheduling", "policy"), "newer", "scheduling.policy: 'newer' is not allowed; allowed: 'random'"),
        (("scheduling", "gate"), "newer", "scheduling.gate: 'newer' is not allowed"),
        (("engine", "type"), "newer", "engine.type: 'newer' is not allowed"),
        (("version",), 2, "version: 2 is not allowed; allowed: 1"),
        (("model",), 3, "model: 3: input should be a valid string"),
        (("balance", "replicas"), {"r": {"weight": 0}}, "balance.replicas.r.weight: 0: input should be greater than"),
    ],
)
def test_what_the_router_cannot_follow_is_refused(config, path, value, said):
    with pytest.raises(DocumentError) as refused:
        parse_router_config(with_change(config, *path, value=value))

    assert str(refused.value).startswith(said)


def test_a_wrong_value_beside_an_unknown_field_is_refused(config):
    document = json.loads(with_change(config, "next", value=1))
    document["scheduling"]["policy"] = "newer"

    with pytest.raises(DocumentError, match=r"^scheduling\.policy: 'newer' is not allowed"):
        parse_router_config(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", b"\xff", "3", "null", "[]"])
def test_what_is_no_document_is_refused(text):
    with pytest.raises(DocumentError):
        parse_router_config(text)
