"""HTTPS on the public port: certificate and key from a folder, loaded again when they change. `app` uses it."""

import logging
import ssl
from pathlib import Path

LOG = logging.getLogger(__name__)


class ServerTls:
    """The TLS context of a server whose certificate may be renewed while it runs."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds tls.crt and tls.key, as a Secret of type kubernetes.io/tls does.

        Raises OSError or ssl.SSLError (an OSError too) where they are missing or do not fit.
        """
        self._files = (folder / "tls.crt", folder / "tls.key")
        self._seen = self._identity()
        self._wrong = ""
        self.context = self._load(_context())

    def renew(self) -> None:
        """Use the files' certificate for new connections if it is another one; a broken one is logged and not used."""
        try:
            seen = self._identity()
            if seen == self._seen:
                self._wrong = ""
                return
            self._load(_context())
            self._load(self.context)
        except OSError as error:
            if str(error) != self._wrong:
                LOG.warning("the renewed certificate in %s is not used: %s", self._files[0].parent, error)
            self._wrong = str(error)
        else:
            self._wrong = ""
            LOG.info("certificate in %s renewed", self._files[0].parent)
            self._seen = seen

    def _identity(self) -> list[tuple[int, int]]:
        return [(status.st_ino, status.st_mtime_ns) for status in (file.stat() for file in self._files)]

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.load_cert_chain(*self._files)
        return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
