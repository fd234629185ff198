"""What has gone to the client of a stream, in text and tokens. `resume` keeps one per continuation.

It is kept as it came, and read in bulk or when somebody asks: most answers end before any of it had to be.
"""

from itertools import groupby, islice

import msgspec

from halffull.router.answers.chunks import Chunk, chunk_in, tells
from halffull.router.answers.pattern import last_event
from halffull.router.unreadable import UNREADABLE

RAW_BYTES = 32 << 20
"""of what was not read yet, of all streams together; each has an equal share"""
RAW_LEAST, RAW_MOST = 16 << 10, 64 << 10
"""bounds of a share: at the upper one most answers end before any event of theirs had to be read"""
MAX_BYTES = 256 << 10
"""of text of one request; a longer one is not continued"""
TOTAL_BYTES = 64 << 20
"""of all requests of a router together"""


class Allowance:
    """Memory that all transcripts of a router share."""

    def __init__(self, total_bytes: int = TOTAL_BYTES) -> None:
        self._left = total_bytes
        self._streams = 0
        self.raw_bytes = RAW_MOST
        """of what was not read that one stream may keep"""

    def joined(self, streams: int) -> None:
        """So many streams more, or fewer, share it."""
        self._streams += streams
        self.raw_bytes = min(max(RAW_BYTES // max(self._streams, 1), RAW_LEAST), RAW_MOST)

    def take(self, size: int) -> bool:
        """Whether so many more bytes may be kept."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """So many bytes are kept no longer."""
        self._left += size


class Transcript:
    """The text and the tokens of one stream so far, as of the last `read`."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        allowance.joined(1)
        self._closed = False
        self._taken = 0
        self._unread: list[bytes] = []
        """whole events, or the text of some as it stands in JSON; no tuples, which the garbage collector would count"""
        self._events: list[int] = []
        """of each of these texts the number of events; 0: it is whole events"""
        self._unread_bytes = 0
        self._last = b""
        """... and the last of the latter, whole, which may tell usage"""
        self.possible = True
        """the text is all there is in the answer, and all of it is kept"""
        self.text = ""
        self.tokens = 0
        """generated so far: what usage says beside the last text, else one per event with text"""
        self.finished = ""
        """why it ended; empty: it has not"""
        self.id = ""
        self.created = 0
        self.prompt_tokens: int | None = None
        """as usage says"""
        self.total_told = False
        """the event after the last token came"""

    def keep(self, events: bytes) -> None:
        """Note whole events that the client gets."""
        if events:
            self._keep(0, events)

    def keep_text(self, events: int, text: bytes, last: bytes) -> None:
        """Note text, as it stands in JSON, of events that say nothing else but usage; `last` is or ends with the last of them."""
        self._last = last
        self._keep(events, text)

    def read(self) -> None:
        """Turn what is kept into text; give up where there is more in it than text, or too much."""
        events, self._events = self._events, []
        unread, self._unread, self._unread_bytes = iter(self._unread), [], 0
        parts = []
        for plain, run in groupby(events, bool):
            counts = [*run]
            piece = b"".join(islice(unread, len(counts)))
            if plain:
                self.tokens += sum(counts)
                parts.append(self._read_text(piece))
                self._read_usage(chunk_in(last_event(self._last)))
            else:
                parts += self._read_events(piece)
        text = "".join(parts)
        size = len(text.encode())
        self.possible = self.possible and self._taken + size <= MAX_BYTES and self._allowance.take(size)
        if self.possible:
            self._taken += size
            self.text += text
        else:
            self._forget()

    def close(self) -> None:
        """The stream is over: give its memory back."""
        if not self._closed:
            self._closed = True
            self._allowance.joined(-1)
        self.possible = False
        self._unread.clear()
        self._events.clear()
        self._forget()

    def _forget(self) -> None:
        self._allowance.give(self._taken)
        self._taken, self.text = 0, ""

    def _keep(self, events: int, data: bytes) -> None:
        if self.possible:
            self._unread.append(data)
            self._events.append(events)
            self._unread_bytes += len(data)
            if self._unread_bytes >= self._allowance.raw_bytes:
                self.read()

    def _read_text(self, raw: bytes) -> str:
        """Return a text as it stands in JSON."""
        try:
            return msgspec.json.decode(b'"%b"' % raw, type=str)
        except UNREADABLE:
            self.possible = False
            return ""

    def _read_events(self, raw: bytes) -> list[str]:
        """Return the texts in events."""
        parts = []
        for event in raw.split(b"\n\n"):
            chunk = chunk_in(event)
            if chunk is None:
                self.possible = self.possible and not tells(event)
                continue
            if not self.id:
                self.id, self.created = chunk.id, chunk.created
            if chunk.error is not None:
                self.possible = False  # it is the end for the client
            for choice in chunk.choices:
                if any(_beside_text(key, value) for key, value in (choice.delta or {}).items()):
                    self.possible = False
                if said := choice.said:
                    parts.append(said)
                    self.tokens += 1
                self.finished = choice.finish_reason or self.finished
            self._read_usage(chunk)
        return parts

    def _read_usage(self, chunk: Chunk | None) -> None:
        if chunk is not None and chunk.usage is not None:
            self.total_told = not chunk.choices
            self.prompt_tokens = chunk.usage.prompt_tokens
            if any(choice.said for choice in chunk.choices):
                self.tokens = chunk.usage.completion_tokens


def _beside_text(key: str, value: object) -> bool:
    """Whether a field of a delta says more than a role and a text do."""
    return bool(value) and (key not in {"role", "content"} or not isinstance(value, str))
