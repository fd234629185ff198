"""How far the prefix index is from what an engine counts: shares of prompt tokens found cached, ours against its own.

Kept per replica by `prefix`, shown in `/status`. Shares and not sums, since an engine counts all requests and a router its own.
"""

KEEP = 0.99
"""weight that old evidence keeps at each scrape with something new: about the last hundred speak"""


class PrefixError:
    """Two shares of one replica, old evidence fading."""

    __slots__ = ("_cached", "_counters", "_hits", "_prompts", "_queries")

    def __init__(self) -> None:
        self._prompts = self._cached = self._queries = self._hits = 0.0
        self._counters: tuple[float, float] | None = None

    def sent(self, prompt_tokens: int, cached_tokens: int) -> None:
        """A request was sent of whose prompt we took so many tokens to be cached."""
        self._prompts += prompt_tokens
        self._cached += cached_tokens

    def told(self, queries: float | None, hits: float | None) -> None:
        """The engine's counters are these: prompt tokens looked up, and found; None: it does not say."""
        if queries is None or hits is None:
            return
        before, self._counters = self._counters, (queries, hits)
        if before is None:
            self._prompts = self._cached = 0.0
        elif queries > before[0] and hits >= before[1]:
            self._queries = KEEP * self._queries + queries - before[0]
            self._hits = KEEP * self._hits + hits - before[1]
            self._prompts *= KEEP
            self._cached *= KEEP

    @property
    def predicted(self) -> float | None:
        """Share of prompt tokens that we took to be cached; None: nothing is known."""
        return self._cached / self._prompts if self._prompts and self._queries else None

    @property
    def counted(self) -> float | None:
        """Share of prompt tokens that the engine found cached; None: nothing is known."""
        return self._hits / self._queries if self._queries and self._prompts else None
