"""How the catalogs of policies, orderings and gates list what they hold; read by `api`, the router and the simulator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


@dataclass(frozen=True)
class Entry(Generic[Made]):
    """One choice of a catalog."""

    name: str
    """the value of the field that selects it"""
    summary: str
    """one sentence for `kubectl explain`"""
    build: Callable[..., Made]
    """makes it from its parameters, or from nothing where it has none"""
    parameters: type[Any] | None = None
    """frozen dataclass of its parameters; None: it has none"""

    def make(self, parameters: Any = None) -> Made:
        """Make it with `parameters`, or with the defaults."""
        if self.parameters is None:
            return self.build()
        return self.build(self.parameters() if parameters is None else parameters)
