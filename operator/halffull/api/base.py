"""What all documents of halffull share: one base model, and rules across its fields. Used by every module of `api`."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

CONFIG = ConfigDict(
    alias_generator=to_camel,
    validate_by_name=True,
    validate_by_alias=True,
    extra="forbid",
    frozen=True,
    strict=True,
    allow_inf_nan=False,
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

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return without_nulls(value, {field.alias or name for name, field in cls.model_fields.items()})

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


def without_nulls(value: Any, keys: Container[str]) -> Any:
    """Leave out those of `keys` that are null, as the API server does: `router:` with nothing after it is its default."""
    if not isinstance(value, dict):
        return value
    return {key: part for key, part in value.items() if part is not None or key not in keys}
