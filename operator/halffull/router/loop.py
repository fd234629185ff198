"""The event loop of a router: uvloop, without its fault that ends the process where an API server goes away.

`command` runs the router on it, `local` the clients of `demo` and `load`. The operator and `up`, whose few requests need no
speed, run on asyncio's own loop.
"""

from socket import socket
from typing import Any

import uvloop


class Loop(uvloop.Loop):
    """Gives up for good each socket that it is handed to connect.

    aiohttp connects a socket itself and hands it over. uvloop closes it where the TLS handshake fails, but the object still
    owns the number, and closes it once more when it is collected: by then the number may be another connection's. libuv
    aborts the process over that (uvloop 0.23, with the remains of its issues 645 and 738; libuv's pull request 5129).
    """

    async def create_connection(self, *where: Any, sock: socket | None = None, **how: Any) -> Any:
        """Connect, as asyncio's; `sock` belongs to the loop from here on."""
        try:
            return await super().create_connection(*where, sock=sock, **how)
        finally:
            if sock is not None:
                sock.detach()
