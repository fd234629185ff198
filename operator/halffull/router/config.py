"""The configuration in force: parses what a source offers, refuses what is wrong, applies the rest between two requests.

`app` makes it with the one function that applies a document; `status` and `metrics` read it.
"""

import logging
from collections.abc import Callable

from halffull.api.router_config import RouterConfig, parse_router_config
from halffull.router.files import Identity, identity

LOG = logging.getLogger(__name__)

Apply = Callable[[RouterConfig, RouterConfig | None], None]


class Config:
    """The last good document, and what is wrong with the last bad one.

    A document that is right, but cannot be carried out here, waits: a file that it names may come later.
    """

    def __init__(self, apply: Apply) -> None:
        """`apply(document, previous)` raises ValueError or OSError where the document cannot be carried out here."""
        self._apply = apply
        self._text = ""
        self._waiting: tuple[RouterConfig, str] | None = None
        """the newest document, and its origin, if it is right but could not be carried out"""
        self._again = False
        """it failed by the system, and may go well without a change of its files"""
        self._tried_with: tuple[Identity, ...] = ()
        """its files when it was tried last"""
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
        self._text, self._waiting = text, None
        try:
            document, unknown = parse_router_config(text)
        except ValueError as error:
            self.refused += 1
            self._refuse(f"{origin}: {error}")
            return
        if unknown:
            LOG.warning("%s: unknown fields ignored: %s", origin, ", ".join(unknown))
        if not document.hash:  # written by hand
            document = document.seal()
        if not self._take(document, origin):
            self.refused += 1

    def look_again(self) -> None:
        """Try what waits once more, if that may go well now; to be called about once a second."""
        if self._waiting is not None and (self._again or self._tried_with != _files(self._waiting[0])):
            self._take(*self._waiting)

    def _take(self, document: RouterConfig, origin: str) -> bool:
        """Apply a right document, or let it wait; return whether it is in force."""
        self._tried_with = _files(document)
        try:
            self._apply(document, self.current)
        except (ValueError, OSError) as error:
            self._waiting, self._again = (document, origin), isinstance(error, OSError)
            self._refuse(f"{origin}: {error}")
            return False
        if self.current is None or self.current.hash != document.hash:
            LOG.info(
                "configuration %.12s applied from %s: policy %s", document.hash, origin, document.scheduling.policy
            )
        self._waiting = None
        self.error = ""
        self.applied += 1
        self.current = document
        return True

    def _refuse(self, why: str) -> None:
        if why != self.error:
            kept = "the last good one stays" if self.current else "there is none yet"
            LOG.warning("configuration refused, %s: %s", kept, why)
        self.error = why

    def missing(self, reason: str) -> None:
        """The source has no document now; the last good one stays."""
        if reason != self.error:
            LOG.warning("no configuration: %s", reason)
        self.error = reason
        self._text, self._waiting = "", None


def _files(document: RouterConfig) -> tuple[Identity, ...]:
    """The files without which a document cannot be carried out."""
    tokenizer = document.tokenizer.file if document.tokenizer else None
    return identity(document.engine.ca_file), identity(tokenizer)
