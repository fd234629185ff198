"""Prompts: as many words as tokens, four bytes each; blocks of one name are one text, all else differs."""

import pytest

from halffull.local.prompts import Prompts
from halffull.sim.trace import BLOCK_TOKENS, Call


@pytest.mark.parametrize("tokens", [1, 5, 8, 9, 700, 70_000, 140_000])
def test_a_prompt_has_as_many_words_as_tokens(tokens):
    text = Prompts(1).text(Call(0.0, tokens, 1))

    assert len(text.split()) == tokens
    assert len(text) == 4 * tokens - 1


@pytest.mark.parametrize(("tokens", "blocks"), [(1100, (3, 4, 5)), (1024, (3, 4)), (2000, (3, 4)), (100, (3, 4))])
def test_a_prompt_of_blocks_has_its_length_too(tokens, blocks):
    assert len(Prompts(1).text(Call(0.0, tokens, 1, blocks)).split()) == tokens


def test_no_two_prompts_share_their_first_words():
    prompts = Prompts(1)
    heads = {prompts.text(Call(0.0, 100, 1))[:32] for _ in range(2000)}

    assert len(heads) == 2000


def test_prompts_share_exactly_the_blocks_they_name():
    prompts = Prompts(1)
    one = prompts.text(Call(0.0, 3 * BLOCK_TOKENS, 1, (1, 2, 3))).split()
    other = prompts.text(Call(0.0, 3 * BLOCK_TOKENS, 1, (1, 2, 9))).split()

    assert one[: 2 * BLOCK_TOKENS] == other[: 2 * BLOCK_TOKENS]
    assert one[2 * BLOCK_TOKENS :][:8] != other[2 * BLOCK_TOKENS :][:8]


def test_a_seed_decides_the_texts():
    call = Call(0.0, 100, 1)

    assert Prompts(1).text(call) == Prompts(1).text(call)
    assert Prompts(1).text(call) != Prompts(2).text(call)
