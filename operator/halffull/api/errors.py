"""Sentences for what is wrong in a document: where, and what is allowed. Made from pydantic's errors, shown to users."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

UNKNOWN_FIELD = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
"""Types of pydantic's errors for a key that the model (or dataclass) does not have."""


class DocumentError(ValueError):
    """A document is refused; one line per reason."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def sentences(error: ValidationError, document: Any) -> list[str]:
    """Return one line per wrong field, `spec.engine.port: ...`, each field once."""
    by_field: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        where = path(detail, document)
        if where in by_field:
            by_field[where] += f", or: {_sentence(detail)}"
        else:
            by_field[where] = _sentence(detail)
    return [f"{where}: {sentence}" if where else sentence for where, sentence in by_field.items()]


def path(detail: ErrorDetails, document: Any) -> str:
    """Return the field of the document that an error is about, as `spec.engine.endpoints[0]`."""
    keys = [*detail["loc"]]
    if detail["type"] == "rule" and detail.get("ctx", {}).get("field"):
        keys.append(detail["ctx"]["field"])
    written, place = "", document
    for number, key in enumerate(keys):
        if isinstance(key, int):
            written += f"[{key}]"
            place = place[key] if isinstance(place, list | tuple) and key < len(place) else None
        elif isinstance(place, dict) or (number == len(keys) - 1 and detail["type"] in {"missing", "rule"}):
            written += f".{key}" if written else key
            place = place.get(key) if isinstance(place, dict) else None
    return written


def _sentence(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in UNKNOWN_FIELD:
        return "unknown field"
    if kind == "missing":
        return "required"
    if kind == "literal_error":
        return f"{value!r} is not allowed; allowed: {context['expected']}"
    if kind in {"rule", "duplicate", "pattern"}:
        return detail["msg"]
    return f"{value!r:.80}: {detail['msg'][0].lower()}{detail['msg'][1:]}"
