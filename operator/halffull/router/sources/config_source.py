"""Where the router's configuration comes from: a file, or a ConfigMap with its mounted copy. Yields texts, judges nothing.

`app` runs one source; each calls `offer(text, origin)` whenever the text may have changed. `config` parses and applies.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import aiohttp

from halffull.api.router_config import CONFIG_MAP_KEY
from halffull.core.contracts import Rng
from halffull.router.files import Identity, identity
from halffull.router.sources.kube import ApiServer
from halffull.router.sources.watch import Objects, Watch, WatchSource

LOG = logging.getLogger(__name__)
POLL_S = 0.2
"""a look costs one stat(2); inotify would miss network and bind-mounted files"""

Offer = Callable[[str, str], None]
Missing = Callable[[str], None]


class FileSource:
    """A file, followed by its identity, size and time of change, so that an atomic replacement counts."""

    def __init__(self, path: Path, *, offer: Offer, missing: Missing) -> None:
        self._path = path
        self._offer = offer
        self._missing = missing
        self._seen: Identity = None
        self.error = ""
        """why the file cannot be read now; empty: it can"""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(POLL_S)

    def look(self) -> bool:
        """Offer the file's text if it is not the one seen last. Return whether there is a file."""
        try:
            seen = identity(self._path)
            if seen is not None and seen == self._seen:
                return True
            text = self._path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = f"{self._path}: {error}"
            if reason != self.error:
                self.error = reason
                self._seen = None
                self._missing(reason)
            return False
        self.error = ""
        self._seen = seen
        self._offer(text, str(self._path))
        return True


class ConfigMapSource(WatchSource):
    """One ConfigMap by list and watch; its mounted copy serves while the API server has not answered yet."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        api: ApiServer,
        namespace: str,
        name: str,
        *,
        mounted: Path | None,
        offer: Offer,
        missing: Missing,
        rng: Rng,
    ) -> None:
        self._name = name
        self._origin = f"ConfigMap {namespace}/{name}"
        self._offer = offer
        self._missing = missing
        self._copy = FileSource(mounted / CONFIG_MAP_KEY, offer=offer, missing=missing) if mounted else None
        watch = Watch(
            client,
            api,
            f"/api/v1/namespaces/{namespace}/configmaps",
            # The right to list and watch is given for this one name, which holds for requests that select it.
            {"fieldSelector": f"metadata.name={name}"},
            changed=self._changed,
            failed=self._failed,
            rng=rng,
        )
        super().__init__(watch)

    def _changed(self, objects: Objects) -> None:
        data = objects.get(self._name, {}).get("data") or {}
        if CONFIG_MAP_KEY in data:
            self._offer(data[CONFIG_MAP_KEY], self._origin)
        else:
            self._missing(
                f"{self._origin} {'has no key ' + CONFIG_MAP_KEY if self._name in objects else 'does not exist'}"
            )

    def _failed(self, reason: str) -> None:
        """Go by the mounted copy, which the kubelet keeps true enough, until the API server has answered once."""
        if not self.watch.lists and not (self._copy and self._copy.look()):
            self._missing(f"{self._origin}: {reason}")
