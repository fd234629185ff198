"""From the JSON schema of pydantic to a structural schema of Kubernetes. Called by `crd`.

Strict: a keyword that has no place in a structural schema, and a field without a description, are errors here, since the
API server would refuse the one, and `kubectl explain` would show nothing for the other.
"""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

COPIED = frozenset({
    "type", "enum", "format", "required",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
})  # fmt: skip
DROPPED = frozenset({"title", "additionalProperties", "description", "default", "x-summaries"})
"""handled elsewhere, or of no use to the API server"""
EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
"""numbers in JSON schema; in Kubernetes they say whether the limit itself is excluded"""
RULES = "x-kubernetes-validations"
PRESERVED = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"


class SchemaError(ValueError):
    """The model says something that a CustomResourceDefinition cannot say; the message names the field."""


def structural(schema: Mapping[str, Any], path: str) -> Schema:
    """Return the structural schema of a whole document; `path` names it in errors. Raises SchemaError."""
    rest = dict(schema)
    return _Converter(rest.pop("$defs", {})).convert(rest, path)


class _Converter:
    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def convert(self, node: Schema, path: str) -> Schema:
        node = self._plain(node, path)
        _check_limits(node, path)
        described = _description(node)
        first = {"description": described, "type": node.get("type")}
        converted: Schema = {key: value for key, value in first.items() if value}
        for key, value in node.items():
            if key in COPIED or key.startswith("x-kubernetes-"):
                converted[key] = value
            elif key == "properties":
                converted[key] = {name: self._field(child, f"{path}.{name}") for name, child in value.items()}
            elif key == "items":
                converted[key] = self.convert(value, f"{path}[]")
            elif key in EXCLUSIVE:
                converted[EXCLUSIVE[key]] = value
                converted[key] = True
            elif key not in DROPPED:
                raise SchemaError(f"{path}: keyword {key!r} has no structural form")
        if PRESERVED not in node:
            self._values(node, converted, path)
        default = self._default(node, converted)
        return converted if default is None else {**converted, "default": default}

    def _values(self, node: Schema, converted: Schema, path: str) -> None:
        """Convert the values of a map; a block without further keys needs no word, all blocks are so in Kubernetes."""
        values = node.get("additionalProperties", False)
        if values is True:
            raise SchemaError(f"{path}: free-form without {PRESERVED}")
        if values:
            converted["additionalProperties"] = self.convert(values, f"{path}{{}}")

    def _field(self, node: Schema, path: str) -> Schema:
        converted = self.convert(node, path)
        if "description" not in converted:
            raise SchemaError(f"{path}: no description")
        return converted

    def _plain(self, node: Schema, path: str) -> Schema:
        """Resolve references, optional types and int-or-string, until the node stands for itself."""
        while "$ref" in node or "anyOf" in node:
            node = dict(node)
            if "$ref" in node:
                target = self._definitions[node.pop("$ref").rpartition("/")[2]]
                node = {**target, **node}
                continue
            choices = [choice for choice in node.pop("anyOf") if choice.get("type") != "null"]
            if node.get(INT_OR_STRING):
                limits = [{k: v for k, v in choice.items() if k != "type"} for choice in choices]
                node = {**{k: v for limit in limits for k, v in limit.items()}, **node}
            elif len(choices) == 1:
                node = {**choices[0], **node}
            else:
                raise SchemaError(f"{path}: a union has no structural form")
        return node

    def _default(self, node: Schema, converted: Schema) -> Any:
        """The default that the API server writes. That of a block is empty, since its fields have their own.

        Unless the block has rules, which the API server checks on the default as it stands.
        """
        default = node.get("default")
        if "properties" not in converted:
            return default if default or default in (0, False) else None
        fields = {name: field["default"] for name, field in converted["properties"].items() if "default" in field}
        if default is None or not fields:
            return None
        return fields if RULES in node else {}


def _check_limits(node: Schema, path: str) -> None:
    """Refuse a limit that has no effect, such as the length of a list: a list has items."""
    kind = node.get("type")
    for key in node:
        if (key.endswith("Length") and kind not in {"string", None}) or (key.endswith("Items") and kind != "array"):
            raise SchemaError(f"{path}: {key!r} has no effect on type {kind!r}")


def _description(node: Schema) -> str:
    """What `kubectl explain` shows: a sentence, and every value that is allowed."""
    text = " ".join(str(node.get("description", "")).split())
    if not text:
        return ""
    text = text[0].upper() + text[1:]
    if text[-1] not in ".!?:":
        text += "."
    summaries = node.get("x-summaries", {})
    if any(summaries.values()):
        text += " Allowed: " + "; ".join(f"{name} ({summaries[name]})" for name in node["enum"]) + "."
    elif "enum" in node:
        text += " Allowed: " + ", ".join(str(value) for value in node["enum"]) + "."
    default = node.get("default")
    if isinstance(default, str | int | float) and not isinstance(default, bool):
        text += f" Default: {default:g}." if isinstance(default, float) else f" Default: {default}."
    return text
