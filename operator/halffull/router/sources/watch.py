"""List and watch of one collection of the Kubernetes API on plain aiohttp: objects by name, kept true.

Used by `config_source` (one ConfigMap) and `endpoints` (the EndpointSlices of one Service). A Kubernetes client
library would cost the router 20 MB and half of its start (see the import-linter contract).
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import msgspec

from halffull.core.contracts import Rng
from halffull.router.sources.kube import ApiServer

LOG = logging.getLogger(__name__)
WATCH_SECONDS = 290
"""asked of the server; it ends the stream then, and we go on from the last version"""
SILENCE_S = 75.0
"""bookmarks come about every 60 s: a stream that is silent for longer is dead"""
SHORTEST_STREAM_S = 1.0
"""a stream that the server ends sooner counts as a failure, so that reconnecting is paced"""
LIST_S = 10.0
READ_BUFFER = 2**21
"""one event is one line; an EndpointSlice of 1000 endpoints has about 400 kB"""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0

Objects = Mapping[str, dict[str, Any]]
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError, ValueError, KeyError, TypeError)


class _ExpiredError(Exception):
    """The version is too old to go on from (410): list again."""


def session() -> aiohttp.ClientSession:
    """Return a client session whose streams hold whole events."""
    return aiohttp.ClientSession(read_bufsize=READ_BUFFER)


class Watch:
    """Follows `path?selector`; calls `changed(objects by name)` after the first list, each later list and each event.

    `failed(reason)` is called at each failure. A run of failures is logged once, and its end once.
    """

    def __init__(
        self,
        client: aiohttp.ClientSession,
        api: ApiServer,
        path: str,
        selector: Mapping[str, str],
        *,
        changed: Callable[[Objects], None],
        failed: Callable[[str], None],
        rng: Rng,
    ) -> None:
        self._client = client
        self._api = api
        self._url = api.url + path
        self._selector = dict(selector)
        self._changed = changed
        self._failed = failed
        self._rng = rng
        self._ssl: ssl.SSLContext | bool = True
        self._version = ""
        self._pause_s = 0.0
        self.objects: dict[str, dict[str, Any]] = {}
        self.error = ""
        """why the watch does not run now; empty: it runs"""
        self.lists = 0
        self.events = 0
        self.failures = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._list()
                while True:
                    await self._stream()
            except _ExpiredError:
                LOG.info("watch of %s: version %s is too old, listing again", self._url, self._version)
            except _FAILURES as error:
                # Never on from the old version after a failure: a restored API server may count from a lower one, and
                # a watch from a version of the future is silent.
                self._fail(error)
                await asyncio.sleep(self._pause_s * (0.5 + self._rng.random()))

    async def _list(self) -> None:
        """Replace all objects by what the server holds."""
        self._ssl = self._api.ssl_context()
        timeout = aiohttp.ClientTimeout(total=LIST_S)
        async with self._client.get(
            self._url, params=self._selector, headers=self._api.headers(), ssl=self._ssl, timeout=timeout
        ) as response:
            body = await response.read()
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}: {_message(body)}")
        document = msgspec.json.decode(body)
        self._version = document["metadata"]["resourceVersion"]
        self.objects = {item["metadata"]["name"]: item for item in document["items"]}
        self.lists += 1
        self._changed(self.objects)

    async def _stream(self) -> None:
        """Follow events from the last version until the server ends the stream. Raises _ExpiredError on 410."""
        parameters = self._selector | {
            "watch": "1",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
        opened = asyncio.get_running_loop().time()
        async with self._client.get(
            self._url, params=parameters, headers=self._api.headers(), ssl=self._ssl, timeout=timeout
        ) as response:
            if response.status == 410:
                raise _ExpiredError
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}: {_message(await response.read())}")
            self._works()
            async for line in response.content:
                self._event(msgspec.json.decode(line))
                self._pause_s = 0.0
        if asyncio.get_running_loop().time() < opened + SHORTEST_STREAM_S:
            raise ValueError("the server ended the stream at once")

    def _event(self, event: dict[str, Any]) -> None:
        """Take one event of the stream."""
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == 410:
                raise _ExpiredError
            raise ValueError(f"watch error {item.get('code')}: {item.get('message')}")
        self._version = item["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        name = item["metadata"]["name"]
        if kind == "DELETED":
            self.objects.pop(name, None)
        else:
            self.objects[name] = item
        self.events += 1
        self._changed(self.objects)

    def _fail(self, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if not self.error:
            LOG.warning("watch of %s failed, trying again: %s", self._url, reason)
        self.error = reason
        self.failures += 1
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._failed(reason)

    def _works(self) -> None:
        if self.error:
            LOG.info("watch of %s works again", self._url)
        self.error = ""


class WatchSource:
    """A source that lives by one watch."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    @property
    def error(self) -> str:
        """Why the API server does not tell us of changes now; empty: it does."""
        return self.watch.error

    async def run(self) -> None:
        """Follow until cancelled."""
        await self.watch.run()


def _message(body: bytes) -> str:
    """The sentence of a Status object, or the beginning of whatever came."""
    try:
        return str(msgspec.json.decode(body)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
