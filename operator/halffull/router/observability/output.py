"""Standard output of what runs for long: where it serves, the access log. Used by `app`, `workers` and `halffull up`."""

import logging
import os
import sys
from contextlib import suppress

LOG = logging.getLogger(__name__)


class Output:
    """Writes whole lines at once, past Python's buffer; a full disk or a closed pipe loses lines and stops nothing."""

    def __init__(self) -> None:
        self._failed = False

    def write(self, lines: str) -> None:
        """Write lines, each with its end."""
        try:
            os.write(sys.stdout.fileno(), lines.encode())
        except OSError as error:
            if not self._failed:
                with suppress(OSError):  # the log may be on the same disk
                    LOG.warning("standard output takes no lines: %s", error)
        else:
            self._failed = False
            return
        self._failed = True
