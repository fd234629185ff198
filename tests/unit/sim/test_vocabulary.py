"""Numbers for tokens."""

from halffull.sim import vocabulary
from halffull.sim.vocabulary import Vocabulary


def test_text_survives_the_way_there_and_back():
    table = Vocabulary()
    text = "Once upon a wonderful   time\n"
    assert table.decode(table.encode(text)) == text
    assert table.encode(text) == table.encode(text)


def test_numbers_never_given_out_are_unknown():
    assert Vocabulary().decode([10**9, -5]) == vocabulary.UNKNOWN * 2


def test_the_table_is_bounded(monkeypatch):
    monkeypatch.setattr(vocabulary, "LARGEST", 300)
    table = Vocabulary()
    numbers = table.encode(" ".join(f"word{n}" for n in range(100)))
    assert max(numbers) == 299
    assert numbers[-1] == 0
