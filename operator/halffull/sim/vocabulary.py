"""Numbers for tokens, for `/tokenize` and `/detokenize`: each piece of text gets the next free number when first seen.

Numbers hold for one engine process only. The table is bounded: pieces that come after it is full share the number 0.
"""

from collections.abc import Iterable

from halffull.sim import language

UNKNOWN = "<unk>"
LARGEST = 200_000


class Vocabulary:
    """Both directions of the table."""

    def __init__(self) -> None:
        self._pieces = [UNKNOWN, *(f" {word}" for word in language.WORDS)]
        self._numbers = {piece: number for number, piece in enumerate(self._pieces)}

    def encode(self, text: str) -> list[int]:
        """Return the number of each token of a text."""
        return [self._number(piece) for piece in language.tokenize(text)]

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of tokens; numbers never given out are unknown."""
        return "".join(self._pieces[n] if 0 <= n < len(self._pieces) else UNKNOWN for n in numbers)

    def _number(self, piece: str) -> int:
        number = self._numbers.get(piece, 0)
        if number == 0 and len(self._pieces) < LARGEST:
            number = self._numbers[piece] = len(self._pieces)
            self._pieces.append(piece)
        return number
