"""`halffull policies`: print what `policy`, `ordering` and `gate` may be, from the catalogs; with a name, all that is known of it."""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from typing import Any

from pydantic import TypeAdapter, with_config
from pydantic.alias_generators import to_camel

from halffull.api.base import CONFIG
from halffull.api.scheduling import parameter_field
from halffull.core.entry import Entry
from halffull.core.gate import GATES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES, PolicyEntry

CATALOGS: Mapping[str, Mapping[str, Entry[Any]]] = {"policy": POLICIES, "ordering": ORDERINGS, "gate": GATES}
WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    names = [name for catalog in CATALOGS.values() for name in catalog]
    parser.add_argument(
        "name", nargs="?", metavar="NAME", choices=names, help="a policy, ordering or gate: tell all of it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Print; return the exit status."""
    found = [
        described(kind, entry)
        for kind, catalog in CATALOGS.items()
        for entry in catalog.values()
        if arguments.name in {None, entry.name}
    ]
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        lines = _list(found) if arguments.name is None else _page(found[0])
        sys.stdout.write("\n".join(lines) + "\n")
    return 0


def described(kind: str, entry: Entry[Any]) -> dict[str, Any]:
    """Return what the catalog, the docstring and the parameters say of one choice."""
    found: dict[str, Any] = {"kind": kind, "name": entry.name, "summary": entry.summary}
    if isinstance(entry, PolicyEntry):
        found |= {"ordering": entry.ordering, "gate": entry.gate}
    found["description"] = cleandoc(entry.build.__doc__ or "")
    if entry.parameters is not None:
        schema = TypeAdapter(with_config(CONFIG)(entry.parameters)).json_schema()
        found["block"] = to_camel(parameter_field(entry.name))
        found["parameters"] = schema.get("properties", {})
    return found


def _list(found: list[dict[str, Any]]) -> Iterator[str]:
    for kind in CATALOGS:
        yield f"{kind}:"
        for entry in (entry for entry in found if entry["kind"] == kind):
            default = " (default)" if entry["name"] == "sal" else ""
            gate = f" [gate {entry['gate']}]" if entry.get("gate", "limit") != "limit" else ""
            yield f"  {entry['name']:<16} {entry['summary']}{gate}{default}"


def _page(entry: dict[str, Any]) -> Iterator[str]:
    yield f"{entry['kind']} {entry['name']}: {entry['summary']}"
    if "gate" in entry:
        yield f"default ordering {entry['ordering']}, default gate {entry['gate']}"
    for paragraph in entry["description"].split("\n\n"):
        yield ""
        yield from textwrap.wrap(" ".join(paragraph.split()), WIDTH)
    for name, schema in entry.get("parameters", {}).items():
        yield ""
        yield f"parameters.{entry['block']}.{name} (default {json.dumps(schema.get('default'))})"
        yield from textwrap.wrap(schema.get("description", ""), WIDTH, initial_indent="  ", subsequent_indent="  ")
