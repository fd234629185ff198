"""Whether a file is another one than before: asked of all files that may be replaced at any time, by the router and `halffull up`."""

from pathlib import Path

Identity = tuple[int, int, int] | None
"""inode, time of change and size, so that an atomic replacement counts; None: it is not there"""


def identity(path: str | Path | None) -> Identity:
    """Return what is the same as long as nobody writes or replaces the file; a link counts as what it leads to."""
    if path is None:
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
