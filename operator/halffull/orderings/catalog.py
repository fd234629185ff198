"""All orderings by name: the one table behind the `ordering` field, its documentation and its validation."""

from collections.abc import Mapping
from types import MappingProxyType

from halffull.core.contracts import Ordering
from halffull.core.entry import Entry
from halffull.orderings.fcfs import Fcfs

_ENTRIES = (Entry[Ordering]("fcfs", "first come, first served", Fcfs),)

ORDERINGS: Mapping[str, Entry[Ordering]] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
