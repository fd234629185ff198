"""What requests hold at a replica: the part of one router, as `books` tells it and `peers` passes it on."""

from typing import NamedTuple


class Load(NamedTuple):
    """What requests hold at a replica, in the units of `Replica`."""

    in_flight: int = 0
    prefill_tokens: int = 0
    prefill_work: int = 0
    waiting_prompt_tokens: int = 0
    decoding: int = 0
    decode_tokens: int = 0


class Page(NamedTuple):
    """What one router has at a replica and has seen of it: what it tells its peers (`peers`)."""

    load: Load = Load()
    starts: int = 0
    """first tokens so far"""
    prefilled: int = 0
    """work of their prompts so far"""
    freed_tokens: int = 0
    """KV freed so far"""
