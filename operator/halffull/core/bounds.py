"""Bounds of parameters, as a type annotation of the standard library: `Annotated[float, Bounds(ge=0)]`.

Pure layers name the bounds here; `api` reads them because pydantic calls `__get_pydantic_core_schema__` on any
annotation that has it, so no layer below `api` imports pydantic.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number may be: `ge`/`le` include the bound, `gt`/`lt` do not; None is no bound."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def admits(self, number: float) -> bool:
        """Whether the number lies within."""
        return (
            (self.ge is None or number >= self.ge)
            and (self.gt is None or number > self.gt)
            and (self.le is None or number <= self.le)
            and (self.lt is None or number < self.lt)
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Add the bounds to the number's schema (called by pydantic)."""
        schema = handler(source)
        schema.update({name: bound for name, bound in asdict(self).items() if bound is not None})
        return schema
