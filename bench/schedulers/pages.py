"""Puts tables into a page of the documentation, between its marks. Called by `judge` and `reference`."""

from collections.abc import Iterable, Sequence
from pathlib import Path


def rows(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    cells = [list(head), ["---"] * len(head), *(list(line) for line in lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def write(page: Path, mark: str, text: str) -> None:
    """Replace what stands between `<!-- mark -->` and `<!-- end -->`. ValueError where the page has no such mark."""
    head, found, rest = page.read_text().partition(f"<!-- {mark} -->\n")
    if not found:
        raise ValueError(f"{page} has no mark <!-- {mark} -->")
    _, end, tail = rest.partition("<!-- end -->")
    page.write_text(f"{head}{found}{text}{end}{tail}")
