"""The index of prompt beginnings: matches as they would be found by looking at each replica, bounded, forgetful."""

from hypothesis import given
from hypothesis import strategies as st

from halffull.core.prefix import BLOCKS, PrefixIndex
from halffull.core.values import Request


def request(blocks: tuple[int, ...], *, tokens: int | None = None) -> Request:
    return Request("id", 0.0, tokens or 10 * len(blocks) + 5, blocks=blocks, block_tokens=10)


def chain(*texts: int) -> tuple[int, ...]:
    """Chained hashes, as hosts make them."""
    found: list[int] = []
    for text in texts:
        found.append(hash((found[-1] if found else 0, text)))
    return tuple(found)


prompts = st.lists(st.integers(0, 2), max_size=6).map(lambda texts: chain(*texts))


@given(sent=st.lists(st.tuples(st.sampled_from("abc"), prompts), max_size=30), asked=prompts)
def test_matches_are_the_longest_beginnings_sent(
    sent: list[tuple[str, tuple[int, ...]]], asked: tuple[int, ...]
) -> None:
    index = PrefixIndex()
    for name, blocks in sent:
        index.insert(name, request(blocks), None)
    expected = {}
    for name in "abc":
        held = {block for other, blocks in sent if other == name for block in blocks}
        depth = next((place for place, block in enumerate(asked) if block not in held), len(asked))
        if depth:
            expected[name] = depth * 10

    assert dict(index.matches(request(asked))) == expected


def test_one_token_is_never_cached() -> None:
    index = PrefixIndex()
    index.insert("a", request((1, 2)), None)

    assert index.matches(request((1, 2), tokens=20)) == {"a": 19}


def test_the_end_of_the_oldest_prompt_is_forgotten_first() -> None:
    index = PrefixIndex()
    index.insert("a", request((1, 2, 3)), kv_tokens=40)
    index.insert("a", request((7, 8)), kv_tokens=40)

    assert index.matches(request((1, 2, 3))) == {"a": 20}
    assert index.matches(request((7, 8))) == {"a": 20}
    assert len(index) == 4


def test_memory_is_bounded_without_a_known_capacity() -> None:
    index = PrefixIndex()
    for number in range(40):
        index.insert("a", request(tuple(range(number * 2000, number * 2000 + 2000))), None)

    assert len(index) <= BLOCKS


def test_a_replica_that_left_is_forgotten_and_its_place_used_again() -> None:
    index = PrefixIndex()
    for name in "abc":
        index.insert(name, request((1, 2)), None)
    index.forget("b")
    index.insert("d", request((1,)), None)

    assert index.matches(request((1, 2))) == {"a": 20, "c": 20, "d": 10}
    for name in "acd":
        index.forget(name)
    assert len(index) == 0
