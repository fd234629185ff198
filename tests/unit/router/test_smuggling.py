"""A corpus of streams on which HTTP parsers disagree: requests, of which an engine sees one at most, and answers of engines.

What the engine and the client get is read by another parser (h11), which must see exactly that and nothing behind it.
"""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from in_memory import ANSWER, World, parse_body, parse_statuses

CORPUS = Path(__file__).parents[2] / "corpus"
REQUESTS: list[dict[str, Any]] = yaml.safe_load((CORPUS / "requests.yaml").read_text())
ANSWERS: list[dict[str, Any]] = yaml.safe_load((CORPUS / "answers.yaml").read_text())
ASK = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def cuts(data: bytes) -> dict[str, list[bytes]]:
    """Ways in which the bytes may arrive."""
    rng = random.Random(1)
    places = sorted(rng.sample(range(1, len(data)), min(5, len(data) - 1))) if len(data) > 1 else []
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


@pytest.mark.parametrize("case", ANSWERS, ids=[case["name"] for case in ANSWERS])
async def test_answers(case: dict[str, Any]) -> None:
    data = case["send"].encode("latin-1")
    for how, pieces in cuts(data).items():
        world = World(data, ANSWER)
        world.engine.pieces = lambda answer, pieces=pieces, data=data: pieces if answer is data else [answer]
        world.engine.ends = lambda answer, data=data, reused=case["reused"]: answer is data and not reused
        got = await world.send(ASK)
        assert parse_statuses(got) == [case["status"]], (how, got)
        assert b"POISON" not in got, how
        if "body" in case:
            assert parse_body(got) == case["body"].encode("latin-1"), how
        again = await world.send(ASK)
        assert (parse_statuses(again), parse_body(again)) == ([200], ANSWER.partition(b"\r\n\r\n")[2]), how
        assert len(world.engine.connections) == (1 if case["reused"] else 2), how
        assert not world.leaks(), how
