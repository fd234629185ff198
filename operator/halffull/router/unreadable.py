"""What msgspec raises at bytes from outside; caught by all who decode what clients, engines or peers say."""

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""no JSON or MessagePack of the expected form, no UTF-8, or nested too deeply"""
