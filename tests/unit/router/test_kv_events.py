"""Messages of engines about their prefix caches, as bytes from the wire."""

import asyncio

import msgspec
import pytest

from halffull.api.engine import KvEvents as Wanted
from halffull.core.books import Replica
from halffull.core.kv_events import Cleared, Removed, Stored
from halffull.core.prefix import PrefixIndex
from halffull.router.signals.kv_events import KvEvents, read

STORED = {
    "type": "BlockStored", "block_hashes": [b"\x01" * 32, 7], "parent_block_hash": None, "token_ids": [1] * 32,
    "block_size": 16, "lora_id": None, "medium": "GPU", "lora_name": None, "session_id": "r1", "new_field": {"a": 1},
}  # fmt: skip


def message(*events):
    return msgspec.msgpack.encode([1.5, list(events), 0])


def test_each_kind_is_read():
    removed = {"type": "BlockRemoved", "block_hashes": [7], "medium": "GPU"}
    assert read(message(STORED, removed, {"type": "AllBlocksCleared"})) == [
        Stored([b"\x01" * 32, 7], None, 16, "r1"), Removed([7]), Cleared(),
    ]  # fmt: skip


def test_what_is_not_told_is_nobodys():
    short = {"type": "BlockStored", "block_hashes": [1], "parent_block_hash": 5, "block_size": 32}
    assert read(message(short)) == [Stored([1], 5, 32, "")]


@pytest.mark.parametrize("other", [{"medium": "CPU"}, {"group_idx": 1}])
def test_other_media_and_further_kinds_of_cache_are_passed_over(other):
    assert read(message({**STORED, **other})) == []
    assert len(read(message({**STORED, "group_idx": 0, "medium": None}))) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"ts": 1}),
        message(["BlockStored", [1], None, [1] * 16, 16, None, "GPU"]),
        message({"type": "Unheard"}),
        message({**STORED, "block_size": 0}),
    ],
)
def test_what_is_not_understood_is_refused(payload):
    with pytest.raises(msgspec.DecodeError):
        read(payload)


async def test_a_fault_of_ours_does_not_end_what_follows_a_replica(caplog):
    pytest.importorskip("zmq")
    calls = 0

    def client():
        nonlocal calls
        calls += 1
        raise KeyError("a bug")

    events = KvEvents(PrefixIndex(), client)
    events.configure(Wanted())
    events.follow([Replica("a", "127.0.0.1", 1)])
    async with asyncio.timeout(20):
        while calls < 2:
            await asyncio.sleep(0.01)
    events.close()
    assert "a bug" in caplog.text
