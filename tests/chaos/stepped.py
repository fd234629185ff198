"""`halffull` under a wall clock that jumps: the file of the first argument holds by how many seconds. Run by scenario clock-step.

Only time of day jumps, as when NTP steps it; monotonic clocks never do.
"""

import sys
import time
from pathlib import Path

real, offset = time.time, Path(sys.argv.pop(1))


def stepped() -> float:
    """Return the time of day with the jump."""
    return real() + float(offset.read_text() or 0)


time.time = stepped

from halffull import cli  # noqa: E402 (after the clock was replaced)

sys.exit(cli.main())
