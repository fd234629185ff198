"""Writes the tables of policies, orderings and gates into docs/policies.md, from the catalogs; run by `make crds`.

With --check it writes nothing and says whether the page is stale.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from halffull.core.entry import Entry
from halffull.core.gate import GATES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES

PAGE = Path(__file__).parent / "policies.md"
FIGURES = PAGE.with_name("figures.json")
"""written by `figures`"""
TABLE = re.compile(r"(<!-- table of (\w+), written by `make crds` -->\n).*?(<!-- end -->)", re.DOTALL)


def advice(entry: Entry[Any]) -> str:
    """Return the sentences of the class's docstring that say when to use it, and when not."""
    text = " ".join((entry.build.__doc__ or "").split())
    sentences = re.findall(r"(?:Use it|Do not use it)\b.*?\.(?= |$)", text)
    return " ".join(sentence.removeprefix("Use it ") for sentence in sentences)


def rows(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    cells = [list(head), *(list(line) for line in lines)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def policies() -> str:
    """Return the table of policies."""
    head = ("policy", "picks", "use it", "gate")
    return rows(head, ((f"`{e.name}`", e.summary, advice(e), f"`{e.gate}`") for e in POLICIES.values()))


def figures() -> str:
    """Return the table of what each policy does in simulation. ValueError where figures.json lacks one."""
    found = json.loads(FIGURES.read_text())
    if list(found) != list(POLICIES):
        raise ValueError("docs/figures.json has other policies than the catalog: run `make figures`")
    scenarios = list(next(iter(found.values())))
    return rows(
        ("policy", *scenarios), ((f"`{name}`", *(f"{own[s]:.2f}" for s in scenarios)) for name, own in found.items())
    )


def choices(kind: str, catalog: Mapping[str, Entry[Any]]) -> str:
    """Return the table of orderings or gates."""
    return rows((kind, "meaning"), ((f"`{e.name}`", e.summary) for e in catalog.values()))


def main() -> int:
    """Write the page, or only say that it is stale; return the exit status."""
    tables = {
        "policies": policies(),
        "figures": figures(),
        "orderings": choices("ordering", ORDERINGS),
        "gates": choices("gate", GATES),
    }
    before = PAGE.read_text()
    after = TABLE.sub(lambda found: found[1] + tables[found[2]] + found[3], before)
    if before == after:
        return 0
    check = "--check" in sys.argv[1:]
    if not check:
        PAGE.write_text(after)
    sys.stderr.write(f"docs/{PAGE.name}: {'stale, run `make crds`' if check else 'written'}\n")
    return int(check)


if __name__ == "__main__":
    sys.exit(main())
