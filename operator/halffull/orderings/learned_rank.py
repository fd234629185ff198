"""Ordering `learned-rank`: the shortest answers first, as learned from those that have ended."""

from dataclasses import dataclass
from itertools import islice
from typing import Annotated

from halffull.core.bounds import Bounds
from halffull.core.contracts import Context, Ordering
from halffull.core.ranker import Ranker
from halffull.core.values import Request


@dataclass(frozen=True, slots=True)
class LearnedRankParameters:
    """Parameters of ordering `learned-rank`."""

    patience_seconds: Annotated[float, Bounds(ge=0, le=3600)] = 10.0
    """the starvation guard: a request is not passed by those that arrive later than this after it"""


class LearnedRank(Ordering):
    """Intent: short answers do not wait for long ones. Inputs: prompt length, `max_tokens`, caller, text features; finished
    requests. Cost: a sum over about ten features; training costs as much per finished request and pair.

    Use it where memory is what makes requests wait, and callers or prompts tell long answers from short ones. Do not use it
    where prefill is what makes them wait: output lengths do not matter then.

    The key is the arrival and, out of the patience, the part of recent requests that were predicted shorter. It learns from
    the books' finished requests, also from those that ended before it was swapped in. Source: learning to rank (arXiv
    2408.15792); see `core.ranker`.
    """

    def __init__(self, parameters: LearnedRankParameters) -> None:
        self._patience_s = parameters.patience_seconds
        self._ranker = Ranker()
        self._seen = 0

    def key(self, request: Request, context: Context) -> float:
        """Return arrival + patience x predicted rank, seconds."""
        books = context.books
        new = min(books.completed - self._seen, len(books.finished))
        if new:
            for finished, tokens in islice(books.finished, len(books.finished) - new, None):
                self._ranker.learn(finished, tokens)
            self._seen = books.completed
        return request.arrived + self._patience_s * self._ranker.rank(request)
