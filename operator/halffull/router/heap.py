"""How the C library gives memory back. `command` calls it once per process.

glibc gives what is freed at the end of its heap back to the kernel at once. A router that reads bodies of a megabyte frees some of
them with every request and would get each page anew: 600 page faults per request, more than half of its cost.
"""

import ctypes

KEPT_BYTES = 32 << 20
"""freed memory that stays with the process"""
LARGE_BYTES = 8 << 20
"""what is asked for in one piece above this comes from the kernel and goes back there"""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed() -> None:
    """Keep freed memory for the next request, where the C library can be told to (glibc)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
