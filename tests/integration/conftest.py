"""Fixtures of the tests with real sockets and processes."""

from ups import file, load, up

__all__ = ["file", "load", "up"]
