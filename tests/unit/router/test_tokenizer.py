"""Prompts counted with the model's own tokenizer: exactly, with what the chat template adds learned from usage."""

import json
from pathlib import Path

import pytest

from halffull.api.router_config import EngineTarget, RouterConfig, Source
from halffull.router.requests.tokenizer import COUNTED, Tokenizer
from in_memory import World

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A tokenizer with a token per character."""
    vocabulary = {character: number for number, character in enumerate("<abcdefghijklmnopqrstuvwxyz ")}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[], unk_token="<"))
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def answer(prompt_tokens: int) -> bytes:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 1}
    body = json.dumps({"choices": [{"text": "x"}], "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def request(*texts: str) -> bytes:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: m\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def test_texts_are_counted_and_long_ones_extrapolated(file: Path) -> None:
    tokenizer = Tokenizer(file)
    assert tokenizer.count(["abc", "", "de"]) == 5
    assert tokenizer.count([]) == 0
    assert tokenizer.count(["a" * COUNTED, "b" * COUNTED, "c"]) == 2 * COUNTED + 1


async def test_prompts_are_estimated_exactly_and_the_template_is_learned(file: Path) -> None:
    world = World(answer(17))
    world.proxy.tokens.tokenizer = Tokenizer(file)
    for _ in range(200):
        await world.send(request("hello", "world"))
    estimates = [decision.prompt_tokens for decision in world.proxy.telemetry.decisions]
    assert estimates[0] == 10
    assert estimates[-1] in {16, 17}
    assert world.proxy.tokens.figures()["error"] < 0.15


@pytest.mark.parametrize("wrong", ["missing", "no tokenizer"])
def test_a_wrong_file_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "tokenizer.json"
    if wrong == "no tokenizer":
        path.write_text("{}")
    with pytest.raises(ValueError, match=r"^tokenizer\.file: .*tokenizer\.json (is no tokenizer|cannot be read)"):
        Tokenizer(path)


def test_the_configuration_names_it() -> None:
    document = {"modelDeployment": {"name": "m"}, "model": "m", "engine": {}, "tokenizer": {"file": "/t.json"}}
    found = RouterConfig.model_validate(document)
    assert found.tokenizer is not None
    assert found.tokenizer.file == "/t.json"
    plain = RouterConfig(model_deployment=Source(name="m"), model="m", engine=EngineTarget())
    assert found.content_hash() != plain.content_hash(), "another file is another configuration"
