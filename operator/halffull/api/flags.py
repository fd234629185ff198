"""Types of command-line options, for argparse: each refuses a wrong value in a sentence that says what is allowed.

Used by the commands.
"""

import os
from argparse import ArgumentTypeError
from collections.abc import Mapping
from math import isfinite
from pathlib import Path


def everywhere(environment: Mapping[str, str] = os.environ) -> str:
    """Return the address that stands for all of this machine: in a cluster of the family of its Services, else IPv4.

    Pods of an IPv6 cluster have no other, or are asked at no other.
    """
    return "::" if ":" in environment.get("KUBERNETES_SERVICE_HOST", "") else "0.0.0.0"


def port(text: str) -> int:
    """Return a port to listen on, 0 for any free one. ArgumentTypeError if it is none, as below."""
    number = _whole(text)
    _require(0 <= number <= 65535, text, "0 to 65535")
    return number


def count(text: str) -> int:
    """Return a whole number of 1 or more."""
    number = _whole(text)
    _require(number >= 1, text, "1 or more")
    return number


def positive(text: str) -> float:
    """Return a number above 0."""
    value = _number(text)
    _require(value > 0, text, "more than 0")
    return value


def not_negative(text: str) -> float:
    """Return a number of 0 or more."""
    value = _number(text)
    _require(value >= 0, text, "0 or more")
    return value


def share(text: str) -> float:
    """Return a number from 0 to 1."""
    value = _number(text)
    _require(0 <= value <= 1, text, "0 to 1")
    return value


def new_file(text: str) -> Path:
    """Return the path of a file that will be written when the work is done: its folder must be there before."""
    path = Path(text)
    if path.is_dir():
        raise ArgumentTypeError(f"{text} is a folder")
    if not path.parent.is_dir():
        raise ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _require(right: bool, text: str, allowed: str) -> None:  # noqa: FBT001
    if not right:
        raise ArgumentTypeError(f"{text} is not allowed; allowed: {allowed}")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None
    if not isfinite(value):
        raise ArgumentTypeError(f"{text!r} is not a finite number")
    return value
