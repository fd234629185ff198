"""The kopf shell: every event of a watched kind is handed on. No annotation, no finalizer.

`app` calls `shell(...)` and runs kopf with it; nothing else of the project imports kopf.
"""

import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from halffull.controller.kube import Document
from halffull.controller.names import OWNER_LABEL
from halffull.controller.picture import WATCHED, Watched

BACKOFFS = (0.5, 1, 1, 2, 2, 3, 3, 5, 5, 5, *(5,) * 1000)
"""pauses (seconds) after failures of a watch: an API server that comes back is noticed within 5 s"""


def shell(
    took: Callable[[str, str | None, Document], None], ending: Callable[[], None], configuration: Configuration
) -> tuple[kopf.OperatorRegistry, kopf.OperatorSettings]:
    """Return what kopf runs with.

    `took(kind, event, document)` gets every event; `ending()` is called when kopf ends, before it waits for all tasks of
    the process that are younger than itself; `configuration` says how to log in.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY, backoff=5)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection(configuration)

    @kopf.on.cleanup(registry=registry)
    def end(**_: Any) -> None:
        ending()

    def watch(watched: Watched) -> None:
        @kopf.on.event(watched.group, watched.version, watched.plural, registry=registry, id=watched.plural)
        async def handle(event: Mapping[str, Any], **_: Any) -> None:
            took(watched.kind, event["type"], dict(event["object"]))

    settings = kopf.OperatorSettings()
    for watched in WATCHED:
        watch(watched)
        if watched.owned:
            settings.watching.label_selectors[watched.group, watched.plural] = OWNER_LABEL
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.networking.error_backoffs = BACKOFFS
    for noisy in ("kopf.objects", "kopf.activities"):
        logging.getLogger(noisy).setLevel("WARNING")
    return registry, settings


class Connection(kopf.ConnectionInfo):
    """Accepts what other Kubernetes clients accept: authorities that state no key usage."""

    def as_ssl_context(self) -> ssl.SSLContext:
        """Return how the server is verified (called by kopf)."""
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


async def connection(configuration: Configuration) -> kopf.ConnectionInfo:
    """Return the same way to the API server as our own client's; called again when it refuses us."""
    # reads a service account's token again, since it is renewed in its file
    secret = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
    scheme, _, token = secret.partition(" ")
    return Connection(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme if token else None,
        token=token or None,
    )
