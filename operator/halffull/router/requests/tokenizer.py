"""Counts the tokens of prompts with the model's own tokenizer, from a `tokenizer.json`. Made by `applier`, asked by `proxy`.

The library `tokenizers` is an extra (`tokenizer`). Counting costs a few hundred times what dividing bytes by a ratio costs, and
nothing else happens meanwhile: so of a long prompt only the beginning is counted, and the rest taken to be like it.
"""

from collections.abc import Iterable
from pathlib import Path

try:
    import tokenizers
except ImportError:  # the extra is not installed
    tokenizers = None  # type: ignore[assignment]

COUNTED = 16_384
"""characters of a prompt that are counted: about 4,000 tokens, some milliseconds"""


class Tokenizer:
    """One model's."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError where the library is missing, or the file cannot be read or is no tokenizer."""
        if tokenizers is None:
            raise ValueError("tokenizer.file needs the library tokenizers: pip install 'halffull[tokenizer]'")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"tokenizer.file: {path} cannot be read: {why}") from error
        try:
            self._encode = tokenizers.Tokenizer.from_str(text).encode
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f"tokenizer.file: {path} is no tokenizer: {error}") from error

    def count(self, texts: Iterable[str]) -> int:
        """Return the tokens of the texts, without those that a chat template adds."""
        tokens = counted = length = 0
        for text in texts:
            length += len(text)
            if counted < COUNTED and text:
                piece = text[: COUNTED - counted]
                tokens += len(self._encode(piece, add_special_tokens=False).ids)
                counted += len(piece)
        return round(tokens * length / counted) if counted else 0
