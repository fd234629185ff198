"""The error of a process that can open no further connection. `upstream` raises it, and who asks for connections looks for it.

An exception's class must not be compiled, so it has this file.
"""

import errno

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""what the system says then"""


class ExhaustedError(OSError):
    """Nothing is left for a connection, of files or memory, in the process or its machine: that says nothing of the engine."""
