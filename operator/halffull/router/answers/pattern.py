"""Events of one stream are alike but for their text and what they count: `answer` knows such a one again by comparing bytes.

An event is read once, with all the searches that this takes; those that follow it are compared with it, at a tenth of the cost.
An event that differs in anything else, or whose text has a quotation mark, is read again.
"""

import re

from halffull.router.answers import usage
from halffull.router.answers.usage import Wish

_TEXT = re.compile(rb'"(?:content|text|reasoning_content|reasoning|arguments|delta)":"')
_USAGE = b',"usage":{'
_ENDS = b'"finish_reason":"'
_DIGITS = b"0123456789"
_BACKSLASH = ord("\\")
_MANY = 3
"""parts of a piece that has at least two events, the last part empty"""


def last_event(data: bytes) -> bytes:
    """Return the last of whole events."""
    boundary = data.rfind(b"\n\n", 0, -2)
    return data if boundary < 0 else data[boundary + 2 :]


class Pattern:
    """The last event of a stream that was read: what comes before its text, what comes after, and the usage behind that."""

    __slots__ = ("_after", "_bare_end", "_before", "_begin", "_counts", "_told", "bare", "text")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._counts: bytes | None = None
        """usage, to the end of the event, without its digits; None: there is none"""
        self._begin = 0
        """where the text begins"""
        self._told = 0
        """... and usage, from the end of the text"""
        self._bare_end = 0
        """bytes behind the text that stay where usage is taken out"""
        self.bare = b""
        """the last piece that was known again, without usage"""
        self.text = b""
        """its text, as it stands in JSON"""

    def known(self, data: bytes) -> int:
        """Return the number of events in a piece that begins with one, if all are whole and like the last one read; else 0."""
        if not self._before:
            return 0
        if self._is_like(data):
            return 1
        texts, bare, events = [], [], data.split(b"\n\n")
        if len(events) < _MANY or events.pop():
            return 0
        for event in events:
            if not self._is_like(event + b"\n\n"):
                return 0
            texts.append(self.text)
            bare.append(self.bare)
        self.text, self.bare = b"".join(texts), b"".join(bare)
        return len(events)

    def _is_like(self, event: bytes) -> bool:
        """Whether this is one event like the last one read; note its text."""
        begin = self._begin
        close = event.find(b'"', begin)
        after = event[close:]
        if self._counts is None:
            if after != self._after:
                return False
            self.bare = event
        else:
            if after[: self._told] != self._after or after[self._told :].translate(None, _DIGITS) != self._counts:
                return False
            self.bare = event[: close + self._bare_end] + b"}\n\n"
        self.text = event[begin:close]
        return event[:begin] == self._before and event[close - 1] != _BACKSLASH

    def learn(self, data: bytes) -> None:
        """Read the last event of a piece that ends with a whole one: whether others may be compared with it."""
        event = last_event(data)
        self._before = b""
        text = _TEXT.search(event)
        if text is None or event.find(_ENDS) >= 0:
            return
        close = event.find(b'"', text.end())
        if event[close - 1] == _BACKSLASH:
            return
        after = event[close:]
        told = after.find(_USAGE)
        if event.find(b'"usage"') < 0:
            self._after, self._counts = after, None
        elif told < 0 or usage.shown(event, Wish.NOTHING) != event[: close + told] + b"}\n\n":
            return  # usage is not the last of the event
        else:
            self._bare_end, self._told = told, told + len(_USAGE)
            self._after, self._counts = after[: self._told], after[self._told :].translate(None, _DIGITS)
        self._before, self._begin = event[: text.end()], text.end()
