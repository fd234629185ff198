"""Small GET requests of our own to engines: metrics, model lists, health. Never a client's request.

Made by `app` for one engine configuration; used by `scrape` and by `endpoints`.
"""

import ssl
from pathlib import Path

import aiohttp

from halffull.api.router_config import EngineTarget

LARGEST_ANSWER = 4 << 20
"""bytes; a vLLM's exposition has 58 kB"""

FAILURES = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
"""what `get` raises"""


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


class EngineClient:
    """Calls engines of one ModelDeployment with its scheme, authority and key."""

    def __init__(self, session: aiohttp.ClientSession, engine: EngineTarget) -> None:
        """Raises OSError or ssl.SSLError as `engine_tls`."""
        self._session = session
        self._scheme = engine.scheme
        self._key_file = Path(engine.api_key_file) if engine.api_key_file else None
        self._ssl = engine_tls(engine) or True

    async def get(self, address: str, path: str, limit_s: float) -> tuple[int, bytes]:
        """Return status and body of `GET path` at `host:port`. Raises one of FAILURES."""
        headers = {}
        if self._key_file:  # read each time: the kubelet replaces the file when the Secret changes
            headers["authorization"] = f"Bearer {self._key_file.read_text().strip()}"
        timeout = aiohttp.ClientTimeout(total=limit_s)
        url = f"{self._scheme}://{address}{path}"
        async with self._session.get(
            url, headers=headers, ssl=self._ssl, timeout=timeout, allow_redirects=False
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise ValueError(f"answer of {path} is larger than {LARGEST_ANSWER} bytes")
            return response.status, bytes(body)
