"""Makes prompt texts of a wanted length in tokens. Called by `client`.

The words have three letters each and are common in English: with the space before it such a word is one token of
practically every vocabulary, and four bytes, which is the usual length of a token of English text.
"""

from random import Random

from halffull.sim.trace import BLOCK_TOKENS, Call

WORDS = """
the and for are but not you all any can had her was one our out day get has him his how man new now old see two
way who boy did its let put say she too use may end air ask big car cut dog eat eye far few fly got hot job key
law lay leg lie lot low map mix net oil own pay red
""".split()  # noqa: SIM905 (easier to read than 64 literals)
"""64 words: six bits of a name each"""
BYTES_PER_WORD = 4
HEAD_WORDS = 8
"""words at the start of a text that name it, so that no two texts share a prefix by chance (48 bits)"""
POOL_WORDS = 65_536


class Prompts:
    """Texts cut from one pool of random words, which costs next to nothing per request."""

    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        self._rng = rng
        self._pool = " ".join(rng.choices(WORDS, k=POOL_WORDS)) + " "

    def text(self, call: Call) -> str:
        """A prompt of `call.prompt_tokens` words; its blocks, where it has some, are the same words every time."""
        names = list(call.blocks[: -(-call.prompt_tokens // BLOCK_TOKENS)])
        words = min(call.prompt_tokens, len(names) * BLOCK_TOKENS)
        parts = [self._named(name, BLOCK_TOKENS) for name in names]
        shared = "".join(parts)[: words * BYTES_PER_WORD]
        rest = call.prompt_tokens - words
        return (shared + self._named(self._rng.getrandbits(48), rest)).rstrip(" ") if rest else shared.rstrip(" ")

    def _named(self, name: int, words: int) -> str:
        """`words` words and a space after each: the name spelled in words, then the pool from a place it chooses."""
        head = "".join(WORDS[name >> shift & 63] + " " for shift in range(0, 6 * HEAD_WORDS, 6))
        start = name * 2_654_435_761 % POOL_WORDS * BYTES_PER_WORD
        body = self._pool[start:]
        while len(head) + len(body) < words * BYTES_PER_WORD:
            body += self._pool
        return (head + body)[: words * BYTES_PER_WORD]
