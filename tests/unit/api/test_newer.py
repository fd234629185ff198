"""Documents of a newer version."""

from typing import Any

import pytest

from halffull.api.errors import DocumentError
from halffull.api.model_deployment import ModelDeployment
from halffull.api.newer import read_known


def resource(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "halffull.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "a"},
        "spec": {"model": "m", "engine": {"type": "simulated", "template": {}}, **spec},
    }


def test_all_is_known() -> None:
    read, unknown = read_known(ModelDeployment, resource(replicas=2))
    assert (read.spec.replicas, unknown) == (2, [])


def test_unknown_fields_are_left_out_and_named() -> None:
    document = resource(colour="red", scheduling={"policy": "random", "parameters": {"powerOfTwo": {"sides": 6}}})
    read, unknown = read_known(ModelDeployment, document)
    assert read.spec.scheduling is not None
    assert read.spec.scheduling.policy == "random"
    assert sorted(unknown) == ["spec.colour", "spec.scheduling.parameters.powerOfTwo.sides"]
    assert document["spec"]["colour"] == "red"


def test_a_wrong_value_is_refused_all_the_same() -> None:
    with pytest.raises(DocumentError, match=r"spec\.scheduling\.policy"):
        read_known(ModelDeployment, resource(colour="red", scheduling={"policy": "of-next-year"}))
