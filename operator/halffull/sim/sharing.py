"""What several routers tell each other of one replica, so that the books of each hold all requests. Called by `simulation`.

Every dispatch, first token and end is entered in the other routers' books as if it were their own, some time later. Tokens
that were streamed meanwhile go along.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from halffull.core.books import Replica, prefill_work
from halffull.core.dispatch import Dispatcher
from halffull.core.exchange import Exchange
from halffull.core.values import Request
from halffull.sim.virtual_engine import Page


class Entry(Enum):
    """What a router entered in its books."""

    SENT = "sent"
    STARTED = "started"
    ENDED = "ended"
    """after it started"""
    UNSENT = "unsent"
    """it left without having started"""


class Message(NamedTuple):
    """One entry, on its way to the other routers."""

    router: int
    entry: Entry
    request: Request
    cached_tokens: int
    tokens: int
    """streamed before the end"""


class Sharing:
    """The messages about one replica that are on their way."""

    def __init__(self, dispatchers: Sequence[Dispatcher], pages: Sequence[Page]) -> None:
        self._dispatchers = dispatchers
        self._pages = pages
        self._messages: list[Message] = []
        self.due = False
        """a delivery is planned"""

    def tell(self, router: int, entry: Entry, exchange: Exchange, cached_tokens: int = 0, tokens: int = 0) -> None:
        """Note what a router entered; `tokens` were streamed before the end."""
        self._messages.append(Message(router, entry, exchange.request, cached_tokens, tokens))

    def deliver(self, now: float) -> None:
        """Let the other routers enter it, too."""
        self.due = False
        grown = [page.grown - page.grown_told for page in self._pages]
        for page, own in zip(self._pages, grown, strict=True):
            page.replica.decode_tokens += sum(grown) - own
            page.grown_told = page.grown
        messages, self._messages = self._messages, []
        for message in messages:
            for router, dispatcher in enumerate(self._dispatchers):
                if router != message.router:
                    _enter(dispatcher, self._pages[router].replica, message, now)
        for dispatcher, page in zip(self._dispatchers, self._pages, strict=True):
            dispatcher.refresh(page.replica, now)


def _enter(dispatcher: Dispatcher, replica: Replica, message: Message, now: float) -> None:
    books, request, cached = dispatcher.books, message.request, message.cached_tokens
    prompt = request.prompt_tokens
    if message.entry is Entry.SENT:
        books.prefixes.insert(replica.name, request, replica.kv_tokens)
        replica.sent(prompt, now, stream=False, cached_tokens=cached)
    elif message.entry is Entry.STARTED:
        if request.stream:
            books.learn(replica, prefill_work(prompt, cached), now)
        replica.started(prompt, now, cached)
    elif message.entry is Entry.ENDED:
        books.ended(replica, prompt + message.tokens, None, now)
    else:
        replica.unsent(prompt, cached)
