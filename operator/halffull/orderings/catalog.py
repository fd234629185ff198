"""All orderings by name: the one table behind the `ordering` field, its documentation and its validation."""

from collections.abc import Mapping
from types import MappingProxyType

from halffull.core.contracts import Ordering
from halffull.core.entry import Entry
from halffull.orderings.adaptive_lifo import AdaptiveLifo, AdaptiveLifoParameters
from halffull.orderings.deadline import Deadline, DeadlineParameters
from halffull.orderings.fcfs import Fcfs
from halffull.orderings.larry import Larry, LarryParameters
from halffull.orderings.learned_rank import LearnedRank, LearnedRankParameters
from halffull.orderings.priority import Priority, PriorityParameters
from halffull.orderings.shortest_prompt import ShortestPrompt
from halffull.orderings.srpt import Srpt, SrptParameters

_ENTRIES = (
    Entry[Ordering]("fcfs", "first come, first served", Fcfs),
    Entry[Ordering](
        "adaptive-lifo",
        "first come, first served; in a backlog the newest first",
        AdaptiveLifo,
        AdaptiveLifoParameters,
    ),
    Entry[Ordering]("shortest-prompt", "the shortest prompt first", ShortestPrompt),
    Entry[Ordering]("larry", "by arrival, large prompts step back when memory is short", Larry, LarryParameters),
    Entry[Ordering]("deadline", "who can still meet slo.ttftSeconds first", Deadline, DeadlineParameters),
    Entry[Ordering]("priority", "by class of the request", Priority, PriorityParameters),
    Entry[Ordering]("srpt", "the least predicted work first, within limits", Srpt, SrptParameters),
    Entry[Ordering]("learned-rank", "the shortest answers first, as learned", LearnedRank, LearnedRankParameters),
)

ORDERINGS: Mapping[str, Entry[Ordering]] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
