"""Python's garbage collector, made rare and measured. `app` runs the router inside `tamed`.

A request leaves no cycles behind: reference counts free it. What the collector still has to look at are the objects of open
requests, so it runs when many more of these were made than freed, not at every 700th.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

from halffull.router.observability.telemetry import Histogram

THRESHOLDS = (20_000, 20, 20)
"""objects made and not freed until the young ones are looked at, and how many such looks until the older ones are"""


@contextmanager
def tamed(pauses: Histogram) -> Iterator[None]:
    """What is here now stays and is never looked at again; `pauses` hears how long each look takes, seconds."""
    began = 0.0

    def note(phase: str, _info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        else:
            pauses.observe(time.perf_counter() - began)

    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(note)
    try:
        yield
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*before)
        gc.unfreeze()
