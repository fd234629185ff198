"""Hashes of prompts: equal beginnings have equal ones, whatever form they come in; others and other keys do not."""

import json

from hypothesis import given
from hypothesis import strategies as st

from halffull.router.requests.blocks import BLOCK_BYTES, MOST, blocks_of
from halffull.router.requests.prompt import session

KEY = b"k" * 16
texts = st.text(max_size=3 * BLOCK_BYTES)


def chat(*contents: object) -> bytes:
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": content} for content in contents]}
    ).encode()


@given(shared=texts, one=texts, other=texts)
def test_they_agree_as_far_as_the_texts_do(shared: str, one: str, other: str) -> None:
    first, second = blocks_of(chat(shared, one), KEY), blocks_of(chat(shared, other), KEY)
    full = len(shared.encode(errors="replace")) // BLOCK_BYTES
    same = sum(a == b for a, b in zip(first, second, strict=False))

    assert same >= full
    assert first[:same] == second[:same]
    assert not set(first[same:]) & set(second[same:])


def test_parts_are_texts_and_keys_matter() -> None:
    text = "word " * 1000

    assert blocks_of(chat(text), KEY) == blocks_of(chat([{"type": "text", "text": text}]), KEY)
    assert not set(blocks_of(chat(text), KEY)) & set(blocks_of(chat(text), b"other"))
    assert len(blocks_of(chat(text), KEY)) == 5001 // BLOCK_BYTES


def test_token_ids_count_and_strange_bodies_have_none() -> None:
    ids = list(range(1000))

    assert len(blocks_of(json.dumps({"prompt": ids}).encode(), KEY)) == 3890 // BLOCK_BYTES
    assert blocks_of(b'{"messages": 7}', KEY) == ()
    assert blocks_of(b'{"prompt": "short"}', KEY) == ()


def test_they_are_bounded() -> None:
    assert len(blocks_of(chat("x" * (2 * MOST * BLOCK_BYTES)), KEY)) == MOST


def test_a_session_is_the_header_else_the_user() -> None:
    assert session({}, "") == ""
    assert session({b"x-halffull-session": b"a"}, "u") == session({b"x-halffull-session": b"a"}, "")
    assert session({}, "u") not in {"", session({}, "v")}
