"""Where peers are and who may be one: what the command line says of them. `command` makes a `Peering`, `app` uses it."""

import asyncio
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from halffull.core.contracts import Rng
from halffull.router.peers.sharing import Address, Sharing
from halffull.router.proxy import Proxy
from halffull.router.signals.scrape import Scraper
from halffull.router.sources.discovery import Endpoints, split_address
from halffull.router.sources.endpoints import Saved, SliceSource
from halffull.router.sources.kube import ApiServer

PORT = 8102
PORT_NAMES = ("peers",)


@dataclass(frozen=True, slots=True)
class Peering:
    """How this router meets others of its ModelDeployment."""

    token_file: Path | None = None
    """holds the secret that they share; None: only Unix sockets are used, which their folder guards"""
    port: int | None = None
    """where peers are listened for; None: nowhere"""
    listening: Path | None = None
    """Unix socket where peers are listened for"""
    service: str | None = None
    """headless Service of all routers, in a cluster"""
    fixed: tuple[Address, ...] = ()
    """addresses that are always dialed"""
    first_port: int = PORT
    processes: int = 1
    """routers of each pod, on as many ports from `first_port` on"""

    def __post_init__(self) -> None:
        """Raises ValueError where the network would be trusted."""
        network = self.port is not None or self.service or any(not isinstance(a, Path) for a in self.fixed)
        if network and self.token_file is None:
            raise ValueError("peers over a network need --peer-token-file")

    def sharing(self, proxy: Proxy, scraper: Callable[[], Scraper], now: Callable[[], float], rng: Rng) -> Sharing:
        """Make the router's part that tells and hears."""
        name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        return Sharing(name, proxy, scraper, token=self.token, now=now, rng=rng)

    async def listen(self, sharing: Sharing, host: str) -> list[asyncio.Server]:
        """Accept peers. Raises OSError where an address is taken."""
        servers = []
        if self.listening is not None:
            servers.append(await sharing.listen(self.listening))
        if self.port is not None:
            servers.append(await sharing.listen((host, self.port)))
        return servers

    def follow(
        self,
        sharing: Sharing,
        client: aiohttp.ClientSession,
        api: ApiServer,
        namespace: str,
        rng: Rng,
    ) -> SliceSource:
        """Return what follows the routers' Service, to be run; ready or not, routers share."""

        def found(endpoints: Endpoints) -> None:
            ports = range(self.first_port, self.first_port + self.processes)
            pods = [(endpoint.host, port) for endpoint in endpoints.values() for port in ports]
            sharing.found((*self.fixed, *pods))

        return SliceSource(
            client, api, namespace, self.service or "", PORT, saved=Saved(None), found=found, rng=rng,
            port_names=PORT_NAMES,
        )  # fmt: skip

    def token(self) -> bytes | None:
        """Return the secret; empty: none is needed; None: there is none yet. Read anew at each handshake, so that a new secret counts at once."""
        if self.token_file is None:
            return b""
        try:
            return self.token_file.read_bytes().strip() or None
        except OSError:
            return None


def addresses(text: str) -> tuple[Address, ...]:
    """Read `HOST:PORT` and paths of Unix sockets, separated by commas. Raises ValueError."""
    try:
        return tuple(Path(part) if "/" in part else split_address(part, PORT) for part in text.split(",") if part)
    except ValueError as error:
        raise ValueError(f"--peers: {error}") from error
