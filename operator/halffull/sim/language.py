"""The language that a simulated engine speaks: its tokens, and the text that follows a text.

Called by the HTTP server of `halffull engine`. Tokens of a text: each run of non-blank characters is one token per
8 characters (rounded up), with the blanks before it. So a prompt of n short words has n tokens, and text that goes on
after a blank never changes the tokens before it.

The text that follows is greedy and depends on the whole text before it and on nothing else: the next word is drawn by
a CRC-32 of all that came before. An answer that is cut off and continued from its text so far is therefore the same
text. Each word is one token; where the text before ends in a blank, the word has none in front. Whether the answer
ends after a word is drawn from the same CRC, with probability 1/200: lengths without a limit are geometric, and the
same on every replica. As in vLLM the end is itself a token, without text.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from zlib import crc32

MEAN_ANSWER = 200
"""mean length in tokens of an answer that neither a limit nor `ignore_eos` shapes"""

_LIST = (
    "a about above after again air all along also always and another answer any are around as ask at away back be "
    "because been before began being below best better between big black book both boy but by call came can car "
    "carry change children city close cold come could country cut day deep did dig do does done door down "
    "draw drop each early earth east easy eat end enough even ever every example eye face fall family far farm "
    "fast father feel feet few field find fire first fish five fly follow food foot for form found four free "
    "friend from front full game gave get girl give go gold good got great green ground group grow had half hand "
    "hard has have he head hear heat help her here high him his hold home horse hot hour house how idea if in "
    "inch into is island it its just keep kind king knew know land language large last late laugh lay lead learn "
    "leave left less let letter life light like line list listen little live long look love low made make man "
    "many map mark may me mean men might mile mind minute miss money moon more morning most mother mountain move "
    "much music must my name near need never new next night no north nose note nothing notice now number of off "
    "often old on once one only open or order other our out over own page paper part pass pattern people person "
    "picture piece place plain plan plane plant play point port pose"
)
WORDS = _LIST.split()[:256]

_PIECE = re.compile(r"\s*\S{1,8}(?:\s+\Z)?")
_WORD_PART = re.compile(r"\S{1,8}")
_SCATTER = 2654435761  # Knuth's multiplicative hash: the low bits of a CRC are too regular to draw from
_END_BELOW = 2**32 // MEAN_ANSWER


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to one prompt: the text of each token, and why it ends."""

    pieces: Sequence[str]
    finish_reason: str
    """length or stop"""
    stop_reason: str | None = None
    """the stop string, where one ended it"""


def count(text: str) -> int:
    """Return the number of tokens in a text."""
    return len(_WORD_PART.findall(text))


def tokenize(text: str) -> list[str]:
    """Return the tokens of a text as strings; joined they are the text (unless it is all blank: that has none)."""
    return _PIECE.findall(text)


def block_hashes(text: str, block_size: int) -> list[Hashable]:
    """Return one hash per full block of `block_size` tokens, each covering all tokens before it."""
    pieces = _WORD_PART.findall(text)
    hashes: list[Hashable] = []
    before = 0
    for end in range(block_size, len(pieces) + 1, block_size):
        before = hash((before, *pieces[end - block_size : end]))
        hashes.append(before)
    return hashes


def answer(text: str, limit: int, *, least: int = 0, endless: bool = False, stop: Sequence[str] = ()) -> Answer:
    """Return what follows `text`: at most `limit` tokens, no end of its own before `least`, none at all if `endless`."""
    state = crc32(text.encode(errors="surrogatepass"))
    glue = "" if not text or text[-1].isspace() else " "
    pieces: list[str] = []
    while len(pieces) < limit:
        drawn = (state * _SCATTER) & 0xFFFFFFFF
        if not endless and len(pieces) >= least and (drawn ^ 0x5BD1E995) * _SCATTER & 0xFFFFFFFF < _END_BELOW:
            pieces.append("")
            return Answer(pieces, "stop")
        piece = glue + WORDS[drawn >> 24]
        glue = " "
        pieces.append(piece)
        state = crc32(piece.encode(), state)
        if stop:
            ended = _cut_at_stop(pieces, stop, least)
            if ended is not None:
                return ended
    return Answer(pieces, "length")


def _cut_at_stop(pieces: list[str], stop: Sequence[str], least: int) -> Answer | None:
    """Where the last token completes a stop string: the answer without it and what follows, its tokens still counted."""
    if len(pieces) < least:
        return None
    longest = max(map(len, stop))
    first = max(0, len(pieces) - 1 - longest)
    tail = "".join(pieces[first:])
    last = len(tail) - len(pieces[-1])
    found = [(at, text) for text in stop if (at := tail.find(text, max(0, last - len(text) + 1))) >= 0]
    if not found:
        return None
    keep, text = min(found)
    for index in range(first, len(pieces)):
        piece = pieces[index]
        pieces[index] = piece[: max(0, keep)]
        keep -= len(piece)
    return Answer(pieces, "stop", text)
