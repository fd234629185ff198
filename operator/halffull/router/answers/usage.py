"""Usage that the router has an engine tell in each event of a stream, and takes out again of what the client gets.

`resume` calls it: an engine that is ahead of its client puts several tokens into one event, so only usage says how many a
text is. Events are JSON without blanks, as engines write them.
"""

import re
from enum import Enum

import msgspec

OPTIONS = b'{"include_usage":true,"continuous_usage_stats":true}'
"""value of `stream_options`"""
_TOLD = re.compile(rb',"usage":\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}')
_KEY = b',"usage":{'
_LAST = b'"choices":[]'
"""marks the event after the last token; like the above it cannot stand in a text, whose quotes are escaped"""


class Wish(Enum):
    """What the client asked to be told."""

    NOTHING = "nothing"
    TOTAL = "total"
    """at the end"""
    EACH = "each"
    """in each event"""


class _Options(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


def wish(fields: dict[str, msgspec.Raw]) -> Wish:
    """Return what a request's fields ask for. Raise msgspec.DecodeError where the options are malformed."""
    options = msgspec.json.decode(fields.get("stream_options", b"null"), type=_Options | None)
    if options is None or not options.include_usage:
        return Wish.NOTHING
    return Wish.EACH if options.continuous_usage_stats else Wish.TOTAL


def asking(body: bytes, fields: dict[str, msgspec.Raw]) -> bytes:
    """Return the request so that it asks for usage in each event."""
    if "stream_options" in fields:
        return msgspec.json.encode(fields | {"stream_options": msgspec.Raw(OPTIONS)})
    return body[: body.rindex(b"}")] + b',"stream_options":' + OPTIONS + b"}"


def shown(events: bytes, wanted: Wish) -> bytes:
    """Return whole events as the client asked for them."""
    if wanted is Wish.EACH or events.find(b'"usage"') < 0:
        return events
    if events.find(_LAST) < 0:
        place = events.rfind(_KEY)
        if place == events.find(_KEY) and events.find(b"}", place) == len(events) - 4:  # one event, and at its end
            return events[:place] + b"}\n\n"
        return _TOLD.sub(b"", events)
    kept = []
    for event in events.split(b"\n\n")[:-1]:
        if _LAST not in event:
            kept.append(_TOLD.sub(b"", event))
        elif wanted is Wish.TOTAL or b'"usage"' not in event:
            kept.append(event)
    return b"".join(event + b"\n\n" for event in kept)
