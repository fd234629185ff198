"""A corpus of streams on which HTTP parsers disagree: each gets its status, and an engine sees one request at most.

What the engine gets is read by another parser (h11), which must see exactly that one request and nothing behind it.
"""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from in_memory import World, parse_statuses

CORPUS = Path(__file__).parents[2] / "corpus"
REQUESTS: list[dict[str, Any]] = yaml.safe_load((CORPUS / "requests.yaml").read_text())


def cuts(data: bytes) -> dict[str, list[bytes]]:
    """Ways in which the bytes may arrive."""
    rng = random.Random(1)
    places = sorted(rng.sample(range(1, len(data)), min(5, len(data) - 1)))
    return {
        "at once": [data],
        "byte by byte": [data[place : place + 1] for place in range(len(data))],
        "in pieces": [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)],
    }


def test_the_corpus_is_large() -> None:
    assert len(REQUESTS) >= 150
    assert len({case["send"] for case in REQUESTS}) == len(REQUESTS)


@pytest.mark.parametrize("case", REQUESTS, ids=[case["name"] for case in REQUESTS])
async def test_requests(case: dict[str, Any]) -> None:
    data = case["send"].encode("latin-1")
    for how, pieces in cuts(data).items():
        world = World()
        answers = await world.send(*pieces)
        assert parse_statuses(answers) == case["statuses"], (how, answers)
        assert len(world.requests()) == case["engine"] <= 1, how
        assert not world.leaks(), how
