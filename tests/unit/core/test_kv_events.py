"""What an engine says of its cache becomes what the index says of ours: blocks of other lengths, known by their places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halffull.core.kv_events import Cleared, EngineCache, Removed, Stored
from halffull.core.prefix import PrefixIndex
from halffull.core.values import Request

OURS = 100
"""tokens of a block of ours"""


def request(name="r", blocks=4):
    return Request(name, 0.0, blocks * OURS + 7, blocks=tuple(f"own{n}" for n in range(blocks)), block_tokens=OURS)


def engine_blocks(count, start=0):
    return [f"theirs{n}" for n in range(start, start + count)]


class Fleet:
    """One replica's cache and the index."""

    def __init__(self, sent=None):
        self.index = PrefixIndex()
        self.cache = EngineCache(self.index, "a")
        sent = sent or request()
        self.index.insert("a", sent, None)
        self.cache.sent(sent)

    def held(self):
        return self.index.matches(request("asks")).get("a", 0)


def test_what_the_engine_evicts_is_no_longer_taken_to_be_there():
    fleet = Fleet()
    fleet.cache.told(Stored(engine_blocks(25), None, 16, "r"))  # 400 tokens
    assert fleet.held() == 400
    fleet.cache.told(Removed(["theirs24"]))  # the last 16 tokens
    assert fleet.held() == 300
    fleet.cache.told(Removed(["theirs20"]))  # in the middle of our last block: nothing ends there
    assert fleet.held() == 300
    fleet.cache.told(Removed(["theirs6"]))  # our first block ends there
    assert fleet.held() == 0


def test_blocks_that_follow_others_have_their_place_behind_them():
    fleet = Fleet()
    fleet.cache.told(Stored(engine_blocks(10), None, 16, "r"))
    fleet.cache.told(Stored(engine_blocks(15, 10), "theirs9", 16, "r"))
    fleet.cache.told(Removed(["theirs12"]))  # tokens 192 to 208: our second block ends there
    assert fleet.held() == 100


def test_one_block_of_the_engine_may_end_several_of_ours():
    fleet = Fleet()
    fleet.cache.told(Stored(engine_blocks(2), None, 512, "r"))
    fleet.cache.told(Removed(["theirs0"]))
    assert fleet.held() == 0


def test_what_others_asked_for_or_what_follows_unknown_blocks_is_counted():
    fleet = Fleet()
    fleet.cache.told(Stored(engine_blocks(3), None, 16, "another's"))
    fleet.cache.told(Stored(engine_blocks(2, 50), "from before our time", 16, "r"))
    assert (fleet.cache.unknown, len(fleet.cache)) == (5, 3)
    assert fleet.held() == 400


def test_an_engine_that_begins_anew_holds_nothing():
    fleet = Fleet()
    fleet.cache.told(Stored(engine_blocks(25), None, 16, "r"))
    fleet.cache.told(Cleared())
    assert (fleet.held(), len(fleet.cache)) == (0, 0)


def test_after_lost_events_the_index_is_an_estimate_again():
    fleet = Fleet()
    fleet.cache.told(Stored(engine_blocks(25), None, 16, "r"))
    fleet.cache.missed()
    fleet.cache.told(Removed(["theirs24"]))
    assert fleet.held() == 400


def test_what_the_index_has_forgotten_comes_back_when_the_engine_stores_it():
    fleet = Fleet()
    fleet.index.drop("a", "own0")
    assert fleet.held() == 0
    fleet.cache.told(Stored(engine_blocks(25), None, 16, "r"))
    assert fleet.held() == 400


@given(st.integers(1, 64), st.integers(1, 300), st.integers(1, 12), st.data())
def test_when_all_blocks_have_left_nothing_is_held(engine_tokens, our_tokens, blocks, data):
    prompt = Request("r", 0.0, blocks * our_tokens, blocks=tuple(range(blocks)), block_tokens=our_tokens)
    index = PrefixIndex()
    cache = EngineCache(index, "a")
    index.insert("a", prompt, None)
    cache.sent(prompt)
    count = -(-blocks * our_tokens // engine_tokens)
    cut = data.draw(st.integers(0, count))
    names = engine_blocks(count)
    cache.told(Stored(names[:cut], None, engine_tokens, "r"))
    cache.told(Stored(names[cut:], names[cut - 1] if cut else None, engine_tokens, "r"))
    for block in data.draw(st.permutations(names)):
        cache.told(Removed([block]))
    assert (len(index), len(cache)) == (0, 0)


@pytest.mark.parametrize("missed", [False, True])
def test_requests_that_were_asked_for_are_bounded(missed):
    fleet = Fleet()
    for number in range(5000):
        fleet.cache.sent(request(f"r{number}"))
    fleet.cache.told(Stored(engine_blocks(25), None, 16, "r0" if missed else "r4999"))
    assert (fleet.cache.unknown == 25) is missed
