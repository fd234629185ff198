"""What all documents of halffull share: one base model, rules across fields, and types with limits.

Used by every module of `api`; the CRD generator reads what is declared here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

CONFIG = ConfigDict(
    alias_generator=to_camel,
    validate_by_name=True,
    validate_by_alias=True,
    extra="forbid",
    frozen=True,
    strict=True,
    use_attribute_docstrings=True,
)
"""Keys are camelCase, unknown keys are refused, no value is converted, and the docstring of a field describes it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition across the fields of one model, in both languages: CEL for the API server, Python for files."""

    message: str
    """says what is wrong and what is allowed"""
    cel: str
    """true where `self` is right"""
    holds: Callable[[Any], bool]
    """the same of an instance of the model"""
    field: str = ""
    """key that the error points at; empty: the model itself"""

    def schema(self) -> dict[str, str]:
        """Return the entry of `x-kubernetes-validations`."""
        where = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.cel, "message": self.message, **where}


class Document(BaseModel):
    """A part of a document: immutable, strict, camelCase outside and snake_case inside."""

    model_config = CONFIG
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _follow_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.message, "field": rule.field})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the rules to the model's schema (called by pydantic)."""
        described = handler(schema)
        if cls.rules:
            target = handler.resolve_ref_schema(described)
            target["x-kubernetes-validations"] = [rule.schema() for rule in cls.rules]
        return described

    def dump(self) -> dict[str, Any]:
        """Return the JSON document: camelCase keys, absent values left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OneOf:
    """Annotation: the string is a name in a catalog. Its summaries become part of the field's description."""

    def __init__(self, summaries: Mapping[str, str]) -> None:
        self._summaries = dict(summaries)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Allow the names of the catalog and nothing else (called by pydantic)."""
        return core_schema.literal_schema(list(self._summaries))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the enum with its summaries, which the CRD generator moves into the description."""
        return {"type": "string", "enum": list(self._summaries), "x-summaries": self._summaries}


class AsBlock:
    """Annotation: the dataclass is also read from a mapping, although nothing else is converted."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let a mapping in; its values are checked as strictly as ever (called by pydantic)."""
        schema = handler(source)
        cast("dict[str, Any]", handler.resolve_ref_schema(schema))["strict"] = False
        return schema


Item = TypeVar("Item")
Items = Annotated[tuple[Item, ...], Strict(strict=False)]
"""A list of a document; also read from a Python list."""


@dataclass(frozen=True, slots=True)
class ListMap:
    """Annotation: items of the list are told apart by one key, so that each can be applied by itself."""

    key: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say it in the way of Kubernetes (called by pydantic)."""
        return {**handler(schema), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}


class UniqueItems:
    """Annotation: no item of the list appears twice."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check it after the items (called by pydantic)."""
        return core_schema.no_info_after_validator_function(_unique, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say it in the way of Kubernetes (called by pydantic)."""
        return {**handler(schema), "x-kubernetes-list-type": "set"}


def _unique(items: tuple[str, ...]) -> tuple[str, ...]:
    for place, item in enumerate(items):
        if item in items[:place]:
            raise PydanticCustomError("duplicate", "Duplicate value: '{item}'", {"item": item})
    return items


FreeForm = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
"""Part of an object of Kubernetes itself, checked by the API server where it is applied."""

Quantity = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]
"""A quantity of Kubernetes: 1, "500m", "8Gi"."""

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Bytes = Annotated[int, Field(ge=1024, le=2**40)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
SecondsOrZero = Annotated[float, Field(ge=0, le=86400)]
LabelValue = Annotated[str, Field(max_length=63)]
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
]
"""Name of an object of Kubernetes in the same namespace."""
