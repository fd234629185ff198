"""The generator of structural schemas refuses what Kubernetes would refuse, and says where."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from halffull.api.base import Document
from halffull.api.structural import SchemaError, structural
from halffull.api.values import FreeForm, Items, Quantity


def converted(annotation: Any, default: Any = ...) -> dict[str, Any]:
    model = type(
        "Model",
        (Document,),
        {
            "__annotations__": {"a_field": Annotated[annotation, Field(description="what it is")]},
            "a_field": Field(default),
        },
    )
    return structural(model.model_json_schema(), "spec")["properties"]["aField"]


class Block(Document):
    """A block."""

    size: int = 3
    """How large"""
    name: str | None = None
    """How called"""


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (int | None, None, {"type": "integer"}),
        (Annotated[float, Field(gt=0, lt=2)], ..., {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 2, "exclusiveMaximum": True}),
        (dict[str, int], ..., {"type": "object", "additionalProperties": {"type": "integer"}}),
        (FreeForm, ..., {"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
        (Items[str], (), {"type": "array", "items": {"type": "string"}}),
        (bool, False, {"type": "boolean", "default": False}),
    ],
)  # fmt: skip
def test_each_form_has_its_structural_one(annotation, default, expected):
    assert converted(annotation, default) == {"description": "What it is.", **expected}


def test_a_literal_becomes_an_enum_repeated_in_the_description():
    assert converted(Literal["a", "b"], "b") == {
        "type": "string",
        "enum": ["a", "b"],
        "default": "b",
        "description": "What it is. Allowed: a, b. Default: b.",
    }


def test_a_block_has_the_defaults_of_its_fields():
    assert converted(Block, Block()) == {
        "type": "object",
        "description": "What it is.",
        "default": {},
        "properties": {
            "size": {"type": "integer", "default": 3, "description": "How large. Default: 3."},
            "name": {"type": "string", "description": "How called."},
        },
    }


def test_a_quantity_is_a_number_or_a_string():
    schema = converted(Quantity)

    assert schema["x-kubernetes-int-or-string"] is True
    assert "type" not in schema
    assert "anyOf" not in schema


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (int | str, "spec.aField: a union has no structural form"),
        (tuple[int, str], "spec.aField: keyword 'prefixItems' has no structural form"),
        (dict[str, Any], "spec.aField: free-form without x-kubernetes-preserve-unknown-fields"),
        (Annotated[int, Field(multiple_of=2)], "spec.aField: keyword 'multipleOf' has no structural form"),
    ],
)
def test_what_has_no_structural_form_is_an_error_that_names_the_field(annotation, said):
    with pytest.raises(SchemaError) as refused:
        converted(annotation)

    assert str(refused.value) == said


def test_a_field_without_description_is_an_error():
    with pytest.raises(SchemaError, match=r"^spec\.size: no description$"):
        structural({"type": "object", "properties": {"size": {"type": "integer"}}}, "spec")


def test_a_limit_without_effect_is_an_error():
    with pytest.raises(SchemaError, match=r"'maxLength' has no effect on type 'array'"):
        structural({"type": "array", "maxLength": 3, "items": {"type": "string"}}, "spec")
