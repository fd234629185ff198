"""Follows the endpoints of the engines: EndpointSlices of a Service, or fixed addresses that it resolves and probes.

`app` runs one source at a time, as the configuration says; each calls `found(endpoints by name)` with the whole set.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from halffull.core.contracts import Rng
from halffull.core.values import State
from halffull.router.http.exhausted import ExhaustedError
from halffull.router.sources import discovery
from halffull.router.sources.discovery import Endpoint, Endpoints
from halffull.router.sources.engine_client import FAILURES, EngineClient, UnreachableError
from halffull.router.sources.kube import ApiServer
from halffull.router.sources.watch import Objects, Watch, WatchSource

LOG = logging.getLogger(__name__)
PROBE_INTERVAL_S = 1.0
HEARD_PROBE_INTERVAL_S = 5.0
"""the same for a ready replica whose metrics come: a scrape says as much as a probe"""
PROBE_LIMIT_S = 5.0
"""a busy engine answers its health path late; the data path judges silence, not this probe"""
PROBE_FAILURES = 3
"""failures in a row that take a replica out; a refused connection counts double, since nothing listens there"""
RESOLVE_INTERVAL_S = 30.0

Found = Callable[[Endpoints], None]


class Saved:
    """The last endpoints of a Service, kept in a file for a start while the API server is away."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / "endpoints.json" if folder else None

    def write(self, service: str, endpoints: Endpoints) -> None:
        """Keep `endpoints`. A failure is logged: the file serves only the next start."""
        if not self._file:
            return
        rows = [{"name": e.name, "host": e.host, "port": e.port, "state": e.state.value} for e in endpoints.values()]
        try:
            fresh = self._file.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode({"service": service, "endpoints": rows}))
            fresh.replace(self._file)
        except OSError as error:
            LOG.warning("cannot keep the endpoints in %s: %s", self._file, error)

    def read(self, service: str) -> Endpoints | None:
        """Return the endpoints kept for `service`; None where there are none."""
        if not self._file or not self._file.exists():
            return None
        try:
            document: dict[str, Any] = msgspec.json.decode(self._file.read_bytes())
            if document["service"] != service:
                return None
            rows = [Endpoint(r["name"], r["host"], r["port"], State(r["state"])) for r in document["endpoints"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            LOG.warning("cannot read the kept endpoints in %s: %s", self._file, error)
            return None
        return {endpoint.name: endpoint for endpoint in rows}


class SliceSource(WatchSource):
    """Endpoints of one headless Service, by list and watch of its EndpointSlices."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        api: ApiServer,
        namespace: str,
        service: str,
        port: int,
        *,
        saved: Saved,
        found: Found,
        rng: Rng,
        port_names: Sequence[str] = discovery.PORT_NAMES,
    ) -> None:
        """`port`: where a slice names none of `port_names`, and not just one port."""
        self._service = f"{namespace}/{service}"
        self._port = port
        self._port_names = port_names
        self._saved = saved
        self._found = found
        watch = Watch(
            client,
            api,
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            {"labelSelector": f"kubernetes.io/service-name={service}"},
            changed=self._changed,
            failed=self._failed,
            rng=rng,
        )
        super().__init__(watch)

    def _changed(self, slices: Objects) -> None:
        endpoints = discovery.from_slices(slices.values(), self._port, self._port_names)
        self._found(endpoints)
        self._saved.write(self._service, endpoints)

    def _failed(self, reason: str) -> None:
        """Use what an earlier run knew, as long as the API server has said nothing."""
        if self.watch.lists or self.watch.failures > 1:
            return
        kept = self._saved.read(self._service)
        if kept is not None:
            LOG.warning("API server away (%s): starting with %d endpoints kept earlier", reason, len(kept))
            self._found(kept)


class FixedSource:
    """Endpoints at fixed addresses or names: resolved now and then, probed all the time."""

    def __init__(
        self,
        addresses: Sequence[str],
        default_port: int,
        *,
        client: EngineClient,
        health_path: str,
        found: Found,
        heard: Callable[[str], float],
        rng: Rng,
    ) -> None:
        """Raises ValueError where the port of an address is none.

        `heard`: when the metrics of an endpoint last came, by its name and the loop's clock.
        """
        self._places = [discovery.split_address(text, default_port) for text in addresses]
        self._client = client
        self._health_path = health_path
        self._found = found
        self._heard = heard
        self._rng = rng
        self._endpoints: dict[str, Endpoint] = {}
        self.error = ""
        """always empty: an endpoint that cannot be resolved or reached is Down, no error"""

    async def run(self) -> None:
        """Follow until cancelled; the first set is given out when each endpoint was probed once."""
        first = await asyncio.gather(*(self._look(host, port) for host, port in self._places))
        self._endpoints = {endpoint.name: endpoint for endpoint in first}
        self._found(self._endpoints)
        async with asyncio.TaskGroup() as group:
            for host, port in self._places:
                group.create_task(self._follow(host, port))

    async def _look(self, host: str, port: int) -> Endpoint:
        """The endpoint as one probe sees it."""
        ip = await self._resolve(host, port)
        up = bool(ip) and await self._probe(ip, port) == 0
        return Endpoint(discovery.address(host, port), ip or host, port, State.READY if up else State.DOWN)

    async def _follow(self, host: str, port: int) -> None:
        name = discovery.address(host, port)
        now = asyncio.get_running_loop().time
        failures, resolved, probed = 0, now(), now()
        while True:
            await asyncio.sleep(PROBE_INTERVAL_S * (0.75 + 0.5 * self._rng.random()))
            before = self._endpoints[name]
            well = before.state is State.READY and not failures and now() < self._heard(name) + 2 * PROBE_INTERVAL_S
            if well and now() < min(probed + HEARD_PROBE_INTERVAL_S, resolved + RESOLVE_INTERVAL_S):
                continue
            probed = now()
            ip = before.host
            if before.state is State.DOWN or failures or now() > resolved + RESOLVE_INTERVAL_S:
                ip, resolved = await self._resolve(host, port, ip) or ip, now()
            try:
                failed = await self._probe(ip, port)
            except ExhaustedError:
                continue  # nobody looked
            failures = failures + failed if failed else 0
            down = failures >= PROBE_FAILURES or (failures > 0 and before.state is State.DOWN)
            after = Endpoint(name, ip, port, State.DOWN if down else State.READY)
            if after != before:
                LOG.info("endpoint %s at %s is %s", name, ip, after.state.value)
                self._endpoints = self._endpoints | {name: after}
                self._found(self._endpoints)

    async def _resolve(self, host: str, port: int, current: str = "") -> str:
        """An IP address of `host`: `current` if it is still one of them; empty where the name does not resolve."""
        try:
            rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # the latter: it can be no name, having an empty or too long label
            LOG.debug("cannot resolve %s: %s", host, error)
            return ""
        found = [str(row[4][0]) for row in rows]
        return current if current in found else found[0]

    async def _probe(self, ip: str, port: int) -> int:
        """Ask the engine whether it serves: 0 where it does, else by how much the failure counts. Raises ExhaustedError."""
        try:
            status, _ = await self._client.get(discovery.address(ip, port), self._health_path, PROBE_LIMIT_S)
        except ExhaustedError:
            raise
        except UnreachableError:
            return 2
        except FAILURES:
            return 1
        return 0 if status == 200 else 1
