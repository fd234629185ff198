"""The configuration in force: parses what a source offers, refuses what is wrong, applies the rest between two requests.

`app` makes it with the one function that applies a document; `status` and `metrics` read it.
"""

import logging
from collections.abc import Callable

from halffull.api.router_config import RouterConfig, parse_router_config

LOG = logging.getLogger(__name__)

Apply = Callable[[RouterConfig, RouterConfig | None], None]


class Config:
    """The last good document, and what is wrong with the last bad one."""

    def __init__(self, apply: Apply) -> None:
        """`apply(document, previous)` raises ValueError or OSError where the document cannot be carried out here."""
        self._apply = apply
        self._text = ""
        self.current: RouterConfig | None = None
        self.error = ""
        """why the newest document is not in force; empty: it is"""
        self.applied = 0
        """documents applied since the start"""
        self.refused = 0

    def offer(self, text: str, origin: str) -> None:
        """Apply the document, or refuse it and stay with the last good one."""
        if text == self._text:
            return
        self._text = text
        try:
            document, unknown = parse_router_config(text)
            if not document.hash:  # written by hand
                document = document.seal()
            self._apply(document, self.current)
        except (ValueError, OSError) as error:
            self.refused += 1
            self.error = f"{origin}: {error}"
            kept = "the last good one stays" if self.current else "there is none yet"
            LOG.warning("configuration refused, %s: %s", kept, self.error)
            return
        if unknown:
            LOG.warning("%s: unknown fields ignored: %s", origin, ", ".join(unknown))
        if self.current is None or self.current.hash != document.hash:
            LOG.info(
                "configuration %.12s applied from %s: policy %s", document.hash, origin, document.scheduling.policy
            )
        self.error = ""
        self.applied += 1
        self.current = document

    def missing(self, reason: str) -> None:
        """The source has no document now; the last good one stays."""
        if reason != self.error:
            LOG.warning("no configuration: %s", reason)
        self.error = reason
        self._text = ""
