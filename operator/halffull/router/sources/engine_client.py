"""Small GET requests of our own to engines: metrics, model lists, health. Never a client's request.

Made by `app` and `applier` for one engine configuration; used by `scrape`, by `endpoints` and by `inspector`. They go through
the data path's own connections, which cost a third of a general HTTP client: an idle router does nothing else.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from halffull.api.router_config import EngineTarget
from halffull.router.files import identity
from halffull.router.http.exhausted import ExhaustedError
from halffull.router.http.framing import Headers
from halffull.router.http.upstream import IDLE_S, Pool, Upstream
from halffull.router.sources import discovery

LARGEST_ANSWER = 4 << 20
"""bytes; a vLLM's exposition has 58 kB"""

FAILURES = (TimeoutError, OSError, ValueError)
"""what `get` raises; an ExhaustedError among them says nothing of the engine"""


class UnreachableError(ConnectionError):
    """No connection could be opened."""


class BrokenOffError(ConnectionError):
    """The connection ended before the answer did."""

    def __init__(self, reason: str, *, reused: bool) -> None:
        super().__init__(reason)
        self.reused = reused
        """nothing came, on a connection that had served before: the engine closed it as we used it"""


def engine_tls(engine: EngineTarget) -> ssl.SSLContext | None:
    """Return how engines are reached by https; None for http.

    Raises OSError or ssl.SSLError where the authority's file is missing or holds no certificate.
    """
    if engine.scheme == "http":
        return None
    context = ssl.create_default_context(cafile=engine.ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # private authorities often state no key usage
    # Replicas are called by pod address, which no certificate names; the authority is what is checked.
    context.check_hostname = False
    return context


class _Answer:
    """One answer as it comes: an `upstream.Reader`."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done = done
        self.status = 0
        self.body = bytearray()

    def answer_head(self, status: int, headers: Headers, fields: dict[bytes, bytes]) -> None:
        """Note the status."""
        self.status = status

    def answer_data(self, data: bytes) -> None:
        """Keep what came, up to the limit."""
        self.body += data
        if len(self.body) > LARGEST_ANSWER:
            self._fail(ValueError(f"the answer is larger than {LARGEST_ANSWER} bytes"))

    def answer_end(self) -> None:
        """It is complete."""
        if not self.done.done():
            self.done.set_result(None)

    def answer_lost(self, reason: str, *, reused: bool) -> None:
        """It will not be complete."""
        self._fail(BrokenOffError(reason, reused=reused))

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class EngineClient:
    """Calls engines of one ModelDeployment with its scheme, authority and key."""

    def __init__(self, engine: EngineTarget, now: Callable[[], float]) -> None:
        """Raises OSError or ssl.SSLError as `engine_tls`."""
        self._now = now
        self._engine = engine
        self._seen = identity(engine.ca_file)
        self._key_file = Path(engine.api_key_file) if engine.api_key_file else None
        self.tls = engine_tls(engine)
        """how engines are reached by https; None: http"""
        self._pools: dict[str, Pool] = {}
        self._used: dict[str, float] = {}
        """when each pool was last asked for a connection"""
        self._pruned = now()

    async def get(self, address: str, path: str, limit_s: float) -> tuple[int, bytes]:
        """Return status and body of `GET path` at `host:port`. Raises one of FAILURES."""
        key = b""
        if self._key_file:  # read each time: the kubelet replaces the file when the Secret changes
            key = b"authorization: Bearer %b\r\n" % self._key_file.read_text().strip().encode()
        request = b"GET %b HTTP/1.1\r\nhost: %b\r\naccept: */*\r\n%b\r\n" % (path.encode(), address.encode(), key)
        pool = self._pool(address)
        async with asyncio.timeout(limit_s):
            upstream = pool.take()
            if upstream is not None:
                try:
                    return await self._ask(upstream, request)
                except BrokenOffError as error:
                    if not error.reused:
                        raise
            try:
                upstream = await pool.connect(limit_s)
            except ExhaustedError:
                raise
            except OSError as error:
                raise UnreachableError(str(error)) from error
            return await self._ask(upstream, request)

    @property
    def authorities(self) -> str | None:
        """Path of the file of the engines' authorities; None: those of this machine."""
        return self._engine.ca_file

    def renew(self) -> bool:
        """Trust what the authorities' file says now; return whether it is another one than before.

        Raises OSError or ssl.SSLError as `engine_tls`, and then trusts as before.
        """
        seen = identity(self._engine.ca_file)
        if seen == self._seen or self.tls is None:
            return False
        self.tls = engine_tls(self._engine)
        self._seen = seen
        for pool in self._pools.values():
            pool.tls = self.tls
        return True

    def close(self) -> None:
        """Close connections, busy ones when their answers are complete."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        self._used.clear()

    async def _ask(self, upstream: Upstream, request: bytes) -> tuple[int, bytes]:
        answer = _Answer(asyncio.get_running_loop().create_future())
        upstream.request(answer, request, b"")
        try:
            await answer.done
        except BaseException:  # cancelled, too
            upstream.abandon()
            raise
        return answer.status, bytes(answer.body)

    def _pool(self, address: str) -> Pool:
        now = self._now()
        if now > self._pruned + IDLE_S:
            self._pruned = now
            for left in [one for one, used in self._used.items() if used < now - IDLE_S]:
                del self._used[left]
                self._pools.pop(left).close()
        self._used[address] = now
        pool = self._pools.get(address)
        if pool is None:
            host, port = discovery.split_address(address, 0)
            pool = self._pools[address] = Pool(host, port, self._now, self.tls)
        return pool
