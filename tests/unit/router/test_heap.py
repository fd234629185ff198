"""What a freed body costs the next one: pages that were given back to the kernel have to be got again."""

import ctypes
import subprocess
import sys

import pytest

ROUNDS = """
import resource
def pieces():
    return [bytes(1 << 20) for _ in range(3)]
pieces()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    pieces()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEPT = "from halffull.router import heap\nheap.keep_freed()\n"


def page_faults(code: str) -> int:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library cannot be told")
def test_freed_memory_stays_for_the_next_request() -> None:
    assert page_faults(KEPT + ROUNDS) < 2000 < page_faults(ROUNDS)
