"""Sentences for what is wrong in a document: where, and what is allowed. Made from pydantic's errors, shown to users."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

UNKNOWN_FIELD = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
"""Types of pydantic's errors for a key that the model (or dataclass) does not have."""

MAPPING = frozenset({"model_type", "dict_type", "dataclass_type"})
"""Types of pydantic's errors for something else where fields should stand"""

OWN = frozenset({"rule", "duplicate", "pattern"})
"""Types of errors that our own checks raise: their message is the sentence, `field` of their context a further key"""


class DocumentError(ValueError):
    """A document is refused; one line per reason."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def sentences(error: ValidationError, document: Any, model: type[BaseModel]) -> list[str]:
    """Return one line per wrong field of a `model`, `spec.engine.port: ...`, each field once."""
    details = error.errors(include_url=False)
    by_field: dict[str, str] = {}
    for detail in details:
        if detail["type"] == "too_short" and any(_inside(other, detail) for other in details):
            continue  # it counts only right items, and the wrong ones are named by themselves
        where = path(detail, document)
        before = f"{by_field[where]}, or: " if where in by_field else ""
        by_field[where] = before + (_unknown(detail, model) if detail["type"] in UNKNOWN_FIELD else _sentence(detail))
    return [f"{where}: {sentence}" if where else sentence for where, sentence in by_field.items()]


def path(detail: ErrorDetails, document: Any) -> str:
    """Return the field of the document that an error is about, as `spec.engine.endpoints[0]`.

    pydantic's own path also has names of a union's choices, which no document has.
    """
    *parents, last = detail["loc"] or ("",)
    written, place = "", document
    for key in parents:
        if _has(place, key):
            written, place = _longer(written, key), place[key]
    if _has(place, last) or detail["type"] == "missing":
        written = _longer(written, last)
    field = detail.get("ctx", {}).get("field", "") if detail["type"] in OWN else ""
    return written if field == "" else _longer(written, field)


def _has(place: Any, key: int | str) -> bool:
    return key in place if isinstance(place, dict) else isinstance(place, list) and isinstance(key, int)


def _longer(written: str, key: int | str) -> str:
    if isinstance(key, int):
        return f"{written}[{key}]"
    return f"{written}.{key}" if written else key


def _inside(inner: ErrorDetails, outer: ErrorDetails) -> bool:
    return len(inner["loc"]) > len(outer["loc"]) and inner["loc"][: len(outer["loc"])] == outer["loc"]


def _sentence(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "required"
    if kind == "tuple_type":
        return f"{value!r:.80} is not a list"
    if kind in MAPPING:
        return f"{value!r:.80} is not a mapping of fields"
    if kind == "literal_error":
        return f"{value!r} is not allowed; allowed: {context['expected']}"
    if kind in OWN:
        return detail["msg"]
    if kind == "too_short":
        return f"at least {context['min_length']} must be given"
    if kind == "too_long":
        return f"at most {context['max_length']} may be given"
    return f"{value!r:.80}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _unknown(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """Say which fields there are where a field is unknown, as the schema of the model has them."""
    schema = model.model_json_schema()
    place = schema
    for key in detail["loc"][:-1]:
        place = place.get("items", {}) if isinstance(key, int) else place.get("properties", {}).get(key, {})
        place = next((choice for choice in place.get("anyOf", ()) if choice.get("type") != "null"), place)
        place = schema["$defs"][place["$ref"].rpartition("/")[2]] if "$ref" in place else place
    known = ", ".join(place.get("properties", ()))
    return f"unknown field; allowed: {known}" if known else "unknown field"
