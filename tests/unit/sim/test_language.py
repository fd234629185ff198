"""Tokens and the text that follows a text."""

import statistics

import pytest

from halffull.sim import language


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("   ", []),
        ("one", ["one"]),
        ("  one two\n", ["  one", " two\n"]),
        ("wonderful", ["wonderfu", "l"]),
        ("日本語の文章です", ["日本語の文章です"]),
    ],
)
def test_tokens_of_a_text(text, tokens):
    assert language.tokenize(text) == tokens
    assert language.count(text) == len(tokens)


def test_every_word_is_one_token_and_plain():
    assert len(set(language.WORDS)) == 256
    assert all(language.count(word) == 1 and word.isascii() and word.isalpha() for word in language.WORDS)


def test_the_text_depends_on_all_of_the_text_before():
    texts = {"".join(language.answer(f"{start} and so on", 20, endless=True).pieces) for start in range(50)}
    assert len(texts) == 50


@pytest.mark.parametrize("cut", [1, 7, 29])
def test_text_goes_on_from_any_cut(cut):
    start = "Once upon"
    whole = language.answer(start, 30, endless=True).pieces
    head = "".join(whole[:cut])
    assert language.answer(start + head, 30 - cut, endless=True).pieces == whole[cut:]


def test_an_answer_ends_at_the_same_place_when_it_goes_on_from_a_cut():
    whole = language.answer("a question\n", 5000).pieces
    assert whole[-1] == ""
    assert language.answer("a question\n" + "".join(whole[:9]), 5000).pieces == whole[9:]


def test_tokens_of_prompt_and_answer_add_up():
    start = "What is it"
    pieces = language.answer(start, 50, endless=True).pieces
    assert language.count(start + "".join(pieces)) == language.count(start) + 50


def test_only_after_a_blank_a_word_has_none_in_front():
    assert not language.answer("a\n", 1, endless=True).pieces[0].startswith(" ")
    assert language.answer("a", 1, endless=True).pieces[0].startswith(" ")
    assert not language.answer("", 1, endless=True).pieces[0].startswith(" ")


def test_lengths_are_drawn_around_the_documented_mean():
    lengths = [len(language.answer(f"question {n}\n", 100_000).pieces) for n in range(1500)]
    assert statistics.mean(lengths) == pytest.approx(language.MEAN_ANSWER, rel=0.1)
    assert statistics.pstdev(lengths) == pytest.approx(language.MEAN_ANSWER, rel=0.15), "geometric"


def test_limits_hold():
    assert len(language.answer("x", 5, endless=True).pieces) == 5
    assert language.answer("x", 5, endless=True).finish_reason == "length"
    natural = len(language.answer("x", 5000).pieces)
    assert len(language.answer("x", 5000, least=natural + 1).pieces) > natural


def test_a_stop_string_across_tokens_is_cut_out_with_what_follows():
    pieces = language.answer("start", 30, endless=True).pieces
    text = "".join(pieces)
    stop = text[len("".join(pieces[:5])) - 2 :][:6]
    answer = language.answer("start", 30, endless=True, stop=[stop, "\n"])
    assert "".join(answer.pieces) == text[: text.index(stop)]
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)


def test_a_stop_string_before_the_least_length_does_not_count():
    pieces = language.answer("start", 30, endless=True).pieces
    answer = language.answer("start", 30, endless=True, least=10, stop=[pieces[2]])
    assert len(answer.pieces) >= 10


def test_block_hashes_cover_the_text_before_them():
    one, other = language.block_hashes("a b c d e f g", 3), language.block_hashes("a b c d X f g", 3)
    assert len(one) == 2
    assert one[0] == other[0]
    assert one[1] != other[1]
    assert language.block_hashes("z b c d e f g", 3)[1] != one[1]
