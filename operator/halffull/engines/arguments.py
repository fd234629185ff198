"""Read and complete an engine's command line, as written in a pod. Callers: `base` and the adapters."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SUFFIXES = {"k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}
"""vLLM's human-readable integers: lower case decimal, upper case binary"""


@dataclass(frozen=True, slots=True)
class Flag:
    """An argument that an engine needs to be routed to."""

    names: tuple[str, ...]
    """the flag and what means the same; the first is the one written"""
    value: str = ""
    """with `{port}` and `{model}` filled in; empty: a switch"""
    unless_positional: bool = False
    """not needed where the user's first argument is a bare word (`vllm serve MODEL`)"""


def with_flags(user_args: Sequence[str], flags: Sequence[Flag], values: Mapping[str, str]) -> list[str]:
    """Return the user's arguments and, after them, each flag that none of them sets."""
    result = list(user_args)
    present = {_name(word) for word in _words(user_args)}
    positional = bool(user_args) and not user_args[0].startswith("-")
    for flag in flags:
        if present.isdisjoint(map(_name, flag.names)) and not (flag.unless_positional and positional):
            result.append(flag.names[0])
            if flag.value:
                result.append(flag.value.format_map(values))
    return result


def flag_number(args: Sequence[str], names: Sequence[str]) -> int | None:
    """Return the positive integer that the last of these flags sets; None where none does."""
    wanted = {_name(name) for name in names}
    found = None
    words = list(_words(args))
    for word, following in pairwise([*words, ""]):
        if _name(word) in wanted:
            _, joined, value = word.partition("=")
            found = _integer(value if joined else following) or found
    return found


def _name(word: str) -> str:
    """Return a flag's name in one spelling: engines take `--max_num_seqs` for `--max-num-seqs`."""
    name = word.partition("=")[0]
    return name.replace("_", "-") if name.startswith("--") else name


def _words(args: Sequence[str]) -> Iterator[str]:
    """Yield the arguments; a shell line (`sh -c "vllm serve ..."`) word by word."""
    for arg in args:
        if " -" not in arg:
            yield arg
            continue
        try:
            yield from shlex.split(arg)
        except ValueError:  # quotes that do not close: as well as can be read
            yield from arg.split()


def _integer(text: str) -> int | None:
    factor = SUFFIXES.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    try:
        value = int(float(digits) * factor)
    except (ValueError, OverflowError):
        return None
    return value if value > 0 else None
