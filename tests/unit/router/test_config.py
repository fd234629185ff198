"""Documents are applied, refused with the field, and followed in files as they are replaced or half written."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from halffull.api.router_config import RouterConfig
from halffull.router.config import Config
from halffull.router.sources.config_source import FileSource

GOOD: dict[str, Any] = {"modelDeployment": {"name": "m"}, "model": "m", "engine": {"endpoints": ["127.0.0.1:1"]}}


def text(**parts: Any) -> str:
    return json.dumps(GOOD | parts)


class World:
    """A Config whose documents are only noted."""

    def __init__(self) -> None:
        self.applied: list[RouterConfig] = []
        self.config = Config(self.apply)

    def apply(self, document: RouterConfig, previous: RouterConfig | None) -> None:
        if document.model == "impossible":
            raise ValueError("cannot be carried out here")
        assert previous is (self.applied[-1] if self.applied else None)
        self.applied.append(document)


@pytest.fixture
def world() -> World:
    return World()


def test_a_good_document_is_applied_once(world: World) -> None:
    world.config.offer(text(), "here")
    world.config.offer(text(), "here")
    assert [document.model for document in world.applied] == ["m"]
    assert (world.config.error, world.config.applied, world.config.current) == ("", 1, world.applied[0])


def test_a_document_without_a_hash_gets_one_and_a_given_hash_is_reported_back(world: World) -> None:
    world.config.offer(text(), "here")
    world.config.offer(text(hash="given"), "here")
    assert [document.hash for document in world.applied] == [world.applied[0].content_hash(), "given"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ('{"model": ', "here: not JSON"),
        (text(scheduling={"policy": "none-such"}), "scheduling.policy"),
        (text(engine={"endpoints": [], "port": 0}), "engine.port"),
        (text(version=2), "version"),
        (text(model="impossible"), "cannot be carried out here"),
    ],
)
def test_a_bad_document_is_refused_with_its_field_and_the_last_good_one_stays(
    world: World, bad: str, said: str
) -> None:
    world.config.offer(text(), "here")
    world.config.offer(bad, "here")
    assert said in world.config.error
    assert world.config.current is world.applied[0]
    assert (world.config.applied, world.config.refused) == (1, 1)
    world.config.offer(text(), "here")
    assert world.config.error == ""


def test_unknown_fields_are_ignored_with_a_warning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        world.config.offer(text(later=1, scheduling={"policy": "random", "mood": "good"}), "here")
    assert world.applied[0].scheduling.policy == "random"
    assert "later" in caplog.text
    assert "scheduling.mood" in caplog.text


def test_a_document_that_could_not_be_carried_out_is_taken_when_its_file_comes(world: World, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"

    def apply(document: RouterConfig, previous: RouterConfig | None) -> None:
        tries.append(document.model)
        if "good" not in file.read_text():
            raise ValueError("is no tokenizer")

    tries: list[str] = []
    config = Config(apply)
    config.offer(text(tokenizer={"file": str(file)}), "here")
    assert "No such file" in config.error
    config.look_again()
    assert len(tries) == 2, "the system may think otherwise each time"
    file.write_text("half")
    config.look_again()
    config.look_again()
    assert (config.error, len(tries)) == ("here: is no tokenizer", 3), "the same file is as wrong as it was"
    file.write_text("a good one")
    config.look_again()
    config.look_again()
    assert (config.error, config.applied, config.refused, len(tries)) == ("", 1, 1, 4)


def test_what_waits_is_forgotten_once_there_is_another_document_or_none(world: World, tmp_path: Path) -> None:
    def apply(document: RouterConfig, previous: RouterConfig | None) -> None:
        if document.model == "late" and not file.exists():
            raise FileNotFoundError(str(file))
        applied.append(document.model)

    file, applied = tmp_path / "file", []
    config = Config(apply)
    config.offer(text(model="late"), "here")
    config.offer(text(model="other"), "here")
    config.offer(text(model="late"), "here")
    config.missing("the file is gone")
    file.touch()
    config.look_again()
    assert (applied, config.error) == (["other"], "the file is gone")


class Follower:
    """A FileSource and what it offered."""

    def __init__(self, path: Path) -> None:
        self.offered: list[str] = []
        self.missed: list[str] = []
        self.source = FileSource(path, offer=lambda text, _: self.offered.append(text), missing=self.missed.append)


def test_a_file_is_offered_when_it_is_another_one(tmp_path: Path) -> None:
    path, fresh = tmp_path / "config", tmp_path / "fresh"
    path.write_text("one")
    follower = Follower(path)
    follower.source.look()
    follower.source.look()
    assert follower.offered == ["one"]
    fresh.write_text("two")
    fresh.replace(path)  # atomic; same size
    follower.source.look()
    path.write_text("three")  # in place
    follower.source.look()
    assert follower.offered == ["one", "two", "three"]


def test_a_file_that_goes_away_is_missed_once_and_taken_when_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "config"
    follower = Follower(path)
    follower.source.look()
    follower.source.look()
    assert len(follower.missed) == 1
    path.write_text("here")
    follower.source.look()
    path.unlink()
    follower.source.look()
    path.write_bytes(b"\xff\xfe")
    follower.source.look()
    assert follower.offered == ["here"]
    assert "No such file" in follower.missed[1]
    assert "decode" in follower.missed[2]


def test_a_mounted_config_map_is_followed_through_its_link(tmp_path: Path) -> None:
    """The kubelet replaces a symbolic link, not the file."""
    for name, content in (("a", "one"), ("b", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.json").write_text(content)
    (tmp_path / "data").symlink_to("a")
    follower = Follower(tmp_path / "data" / "router.json")
    follower.source.look()
    (tmp_path / "fresh").symlink_to("b")
    (tmp_path / "fresh").replace(tmp_path / "data")
    follower.source.look()
    assert follower.offered == ["one", "two"]
