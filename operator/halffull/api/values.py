"""Types of single values and lists in documents, with what is allowed; each says it to pydantic and to the API server.

An annotation here is read by pydantic for files, and by the CRD generator for the cluster: one source, both refuse alike.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from halffull.api.base import without_nulls


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
        keys = {to_camel(name) for name in source.__dataclass_fields__}
        return core_schema.no_info_before_validator_function(lambda value: without_nulls(value, keys), schema)


@dataclass(frozen=True, slots=True)
class Matches:
    """Annotation: the string matches a regular expression, in the common part of Python's and RE2's languages."""

    pattern: str
    allowed: str
    """what is allowed, for people: regular expressions make poor messages"""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check it after everything else (called by pydantic)."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say it in CEL, which can carry a message (called by pydantic)."""
        described = handler(schema)
        test = f"self.matches({_cel_string(self.pattern)})"
        rule = {"rule": test, "message": f"allowed: {self.allowed}"}
        if "anyOf" in described:
            described["x-kubernetes-int-or-string"] = True
            rule["rule"] = f"type(self) == int || {test}"
        else:
            sentence = _cel_string(f"' is not allowed; allowed: {self.allowed}")
            rule["messageExpression"] = f'"\'" + self + {sentence}'
        return {**described, "x-kubernetes-validations": [rule]}

    def _check(self, value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(self.pattern, value, re.ASCII):
            raise PydanticCustomError(
                "pattern", "{value} is not allowed; allowed: {allowed}", {"value": repr(value), "allowed": self.allowed}
            )
        return value


def _cel_string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class UniqueItems:
    """Annotation: no item of the list appears twice."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check it after the items (called by pydantic)."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say it in the way of Kubernetes (called by pydantic)."""
        return {**handler(schema), "x-kubernetes-list-type": "set"}

    def _check(self, items: tuple[str, ...]) -> tuple[str, ...]:
        _refuse_duplicates(items)
        return items


@dataclass(frozen=True, slots=True)
class ListMap:
    """Annotation: items of the list are told apart by one key, so that each can be applied by itself."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check it after the items (called by pydantic)."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say it in the way of Kubernetes (called by pydantic)."""
        return {**handler(schema), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}

    def _check(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        _refuse_duplicates([getattr(item, self.key) for item in items])
        return items


def _refuse_duplicates(keys: tuple[str, ...] | list[str]) -> None:
    for place, key in enumerate(keys):
        if key in keys[:place]:
            raise PydanticCustomError("duplicate", "{key} stands there twice", {"key": repr(key), "field": place})


Item = TypeVar("Item")
Items = Annotated[tuple[Item, ...], Strict(strict=False)]
"""A list of a document; also read from a Python list."""

FreeForm = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
"""Part of an object of Kubernetes itself, checked by the API server where it is applied."""

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Bytes = Annotated[int, Field(ge=1024, le=2**40)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
SecondsOrZero = Annotated[float, Field(ge=0, le=86400)]

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"

ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Matches(rf"^{LABEL}(\.{LABEL})*$", "lower-case letters, digits, '-' and '.'; first and last a letter or digit"),
]
"""Name of an object of Kubernetes in the same namespace."""

Endpoint = Annotated[
    str,
    Field(max_length=260),
    Matches(
        rf"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?):{PORT}$",
        "HOST:PORT with a name, an IPv4 address or an IPv6 address in [], and a port of 1 to 65535",
    ),
]

LabelValue = Annotated[
    str,
    Field(max_length=63),
    Matches(
        "^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$",
        "letters, digits, '-', '_' and '.'; first and last a letter or digit",
    ),
]

Quantity = Annotated[
    int | Annotated[str, Field(max_length=32)],
    Matches(r"^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][0-9]+)?$", "a quantity such as 1, 500m or 8Gi"),
]

Share = Annotated[
    Annotated[int, Field(ge=0, le=10_000)] | Annotated[str, Field(max_length=4)],
    Matches("^(100|[1-9]?[0-9])%$", "a number, or a percentage such as 25%"),
]
"""Pods: a number, or a percentage of the replicas."""
