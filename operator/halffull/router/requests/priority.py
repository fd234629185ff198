"""The field `priority` of requests, by which an engine may order what waits in it: kept, dropped, or set by us. Pure.

vLLM with `--scheduling-policy priority` takes any 64-bit integer, lower first. Sending the place that the ordering gives a
request brings the ordering into an unmodified engine.
"""

from enum import Enum

import msgspec

from halffull.router.unreadable import UNREADABLE

HEADER = b"x-vllm-priority"
"""wins over the field, in vLLM since 0.32"""
CLASS = 1 << 48
"""milliseconds between classes of requests: more than any key of an ordering"""
MOST = CLASS // 2 - 1
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Priority(Enum):
    """What becomes of it; values of `engine.priority`."""

    KEEP = "keep"
    DROP = "drop"
    SEND = "send"
    FILL = "fill"

    @property
    def withheld(self) -> frozenset[bytes]:
        """Return headers of requests that engines must not get."""
        return _WITHHELD if self is Priority.DROP or self is Priority.SEND else _NONE

    def applied(self, body: bytes, rank: int) -> bytes:
        """Return the JSON object with the priority that it is to have; every other value keeps its bytes.

        A body that is no JSON object is returned as it is.
        """
        if self is Priority.KEEP or (self is Priority.DROP and b"priority" not in body and b"\\u" not in body):
            return body
        try:
            fields = _FIELDS.decode(body)
        except UNREADABLE:
            return body  # an upload, or what the engine is to judge
        if self is Priority.DROP:
            if fields.pop("priority", None) is None:
                return body
        elif self is Priority.SEND or "priority" not in fields:
            fields["priority"] = msgspec.Raw(b"%d" % rank)
        return msgspec.json.encode(fields)


_WITHHELD, _NONE = frozenset({HEADER}), frozenset[bytes]()


def number(key_s: float, group: int) -> int:
    """Return the priority of a request by its class and its key, which is taken for seconds since 1970."""
    return group * CLASS + round(min(max(key_s * 1000, -MOST), MOST))
