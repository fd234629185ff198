"""What a router records of requests: no text, in bounded files, whatever the disk does."""

import asyncio
import json
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from halffull.api.router import Record
from halffull.router.observability import recording
from halffull.router.observability.recording import Recorder, append, block_key, older
from halffull.sim.trace import parse_trace
from in_memory import ANSWER, World

SECRET = b"a secret that all routers share"
ENGINE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 75\r\n\r\n"
    b'{"choices":[{"text":"x"}],"usage":{"prompt_tokens":500,"completion_tokens":7}}'
)
ENGINE = ENGINE.replace(b"75", b"%d" % len(ENGINE.partition(b"\r\n\r\n")[2]))


def recorder_of(world: World, path: Path | None, *, on: bool = True) -> Recorder:
    made = Recorder(path, world.proxy, lambda: 1_800_000_000.0 + world.now, secret=lambda: SECRET, always=False)
    made.configure(Record() if on else None)
    return made


def request_of(prompt: str, *lines: str) -> bytes:
    body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 9}).encode()
    head = "".join(f"{line}\r\n" for line in ("host: m", "content-type: application/json", *lines))
    return f"POST /v1/completions HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def test_a_line_tells_lengths_and_outcome_and_no_text(tmp_path: Path) -> None:
    world = World(ENGINE)
    recorder = recorder_of(world, tmp_path / "r.jsonl")
    await world.send(request_of("secret words " * 200, "authorization: Bearer sk-123", "x-halffull-priority: 2"))
    await recorder.flush()

    text = (tmp_path / "r.jsonl").read_text()
    header, entry = map(json.loads, text.splitlines())
    assert header == {"recording": 1, "blockBytes": 512}
    assert "secret" not in text
    assert "sk-123" not in text
    assert len(entry.pop("hash_ids")) == 2600 // 512
    assert entry.pop("caller")
    assert entry.pop("timestamp") >= 1_800_000_000_000
    assert entry.pop("duration") >= 0
    assert entry == {
        "input_length": 500, "output_length": 7, "prompt_bytes": 2600, "stream": False, "max_tokens": 9, "priority": 2,
        "session": "", "status": 200, "reason": "", "replica": "r0", "attempts": 1, "sent": entry["sent"],
        "ttft": entry["ttft"],
    }  # fmt: skip
    assert recorder.figures() == {"file": str(tmp_path / "r.jsonl"), "recorded": 1, "dropped": 0, "error": None}


async def test_prompts_that_begin_alike_have_the_same_names_in_the_recordings_of_all_routers(tmp_path: Path) -> None:
    names = []
    for number, prompt in enumerate(["same " * 300 + "one " * 300, "same " * 300 + "two " * 300]):
        world = World(ENGINE)
        recorder = recorder_of(world, tmp_path / f"{number}.jsonl")
        await world.send(request_of(prompt))
        await recorder.flush()
        names.append(json.loads((tmp_path / f"{number}.jsonl").read_text().splitlines()[1])["hash_ids"])
    assert names[0][:2] == names[1][:2]
    assert names[0][-1] != names[1][-1]


async def test_nothing_is_recorded_unless_it_is_asked_for(tmp_path: Path) -> None:
    world = World(ENGINE)
    recorder = recorder_of(world, tmp_path / "r.jsonl", on=False)
    await world.send(request_of("a"))
    assert (recorder.figures(), world.proxy.recording) == (None, False)
    recorder.configure(Record())
    await world.send(request_of("a"))
    recorder.configure(None)
    await world.send(request_of("a"))
    await recorder.flush()
    assert recorder.recorded == 1


async def test_a_refused_request_is_recorded_with_its_reason(tmp_path: Path) -> None:
    world = World(ANSWER.replace(b"200 OK", b"503 Busy"))
    recorder = recorder_of(world, tmp_path / "r.jsonl")
    await world.send(request_of("a"))
    await world.send(b"POST /sleep HTTP/1.1\r\nhost: m\r\ncontent-length: 0\r\n\r\n")  # never gets that far
    await recorder.flush()
    entries = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()[1:]]
    assert [(entry["status"], entry["reason"], entry["output_length"]) for entry in entries] == [
        (503, "engine_busy", 0)
    ]


async def test_a_full_disk_costs_recorded_requests_and_nothing_else() -> None:
    world = World(ENGINE)
    recorder = recorder_of(world, Path("/dev/full"))
    for _ in range(2):
        assert b" 200 " in await world.send(request_of("a"))
        await recorder.flush()
    assert recorder.figures() == {
        "file": "/dev/full", "recorded": 0, "dropped": 2, "error": "[Errno 28] No space left on device",
    }  # fmt: skip


async def test_what_is_written_at_once_is_written_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the regular flush, one for `/recording`, and one at the end, which may come while another was given up."""
    slow = threading.Event()

    def hesitate(path: Path, data: bytes, most: int) -> None:
        if not path.exists():
            assert slow.wait(30)
        append(path, data, most)

    monkeypatch.setattr(recording, "append", hesitate)
    world, path = World(ENGINE), tmp_path / "r.jsonl"
    recorder = recorder_of(world, path)
    flushes = []
    for number in range(3):
        await world.send(request_of("a" * (number + 1)))
        flushes.append(asyncio.create_task(recorder.flush()))
        await asyncio.sleep(0)
    flushes[0].cancel()
    with suppress(TimeoutError):  # it must not end yet
        await asyncio.wait_for(asyncio.shield(flushes[1]), 0.2)
    slow.set()
    await asyncio.gather(*flushes, return_exceptions=True)
    header, *lines = map(json.loads, path.read_text().splitlines())
    assert header["recording"] == 1
    assert [line["prompt_bytes"] for line in lines] == [1, 2, 3]


async def test_recording_begins_once_there_is_a_place_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "FLUSH_S", 0.01)
    world, folder = World(ENGINE), tmp_path / "later"
    recorder = Recorder(folder / "r.jsonl", world.proxy, lambda: 0.0, secret=lambda: None, always=False)
    recorder.configure(Record())
    assert "No such file" in recorder.error
    folder.mkdir()
    running = asyncio.create_task(recorder.run())
    async with asyncio.timeout(30):
        while not world.proxy.recording:
            await asyncio.sleep(0.01)
        assert recorder.error == ""
        await world.send(request_of("a"))
        while not recorder.recorded:
            await asyncio.sleep(0.01)
    running.cancel()


async def test_lines_that_the_disk_does_not_take_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "PENDING_BYTES", 700)
    world = World(ENGINE)
    recorder = recorder_of(world, tmp_path / "r.jsonl")
    for _ in range(5):
        await world.send(request_of("a"))
    await recorder.flush()
    assert (recorder.recorded, recorder.dropped) == (3, 2)


async def test_without_a_place_the_router_says_so() -> None:
    world = World(ENGINE)
    recorder = recorder_of(world, None)
    assert b" 200 " in await world.send(request_of("a"))
    await recorder.flush()
    figures = recorder.figures()
    assert figures is not None
    assert "--state-dir" in figures["error"]


def test_the_oldest_half_goes_first_and_the_rest_is_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    line = json.dumps({"timestamp": 1, "input_length": 10, "output_length": 5, "stream": True, "priority": 0,
                       "caller": "", "session": "", "hash_ids": [], "prompt_bytes": 40}).encode() + b"\n"  # fmt: skip
    for _ in range(100):
        append(path, line * 3, 2000)
    sizes = [file.stat().st_size for file in (older(path), path)]
    assert 0 < min(sizes) <= max(sizes) <= 2000
    for file in (older(path), path):
        assert len(parse_trace(file.read_text(), file.name)) >= 3


async def test_all_that_is_kept_can_be_read_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    older(path).write_bytes(b"old\n")
    path.write_bytes(b"new\n")
    recorder = recorder_of(World(), path)
    assert b"".join([piece async for piece in recorder.content()]) == b"old\nnew\n"


def test_without_a_common_secret_the_key_is_kept_beside_the_recording(tmp_path: Path) -> None:
    key = block_key(None, tmp_path / "r.jsonl")
    assert key == block_key(None, tmp_path / "r.jsonl")
    assert key != block_key(SECRET, tmp_path / "r.jsonl")
    assert key == block_key(None, tmp_path / "another-worker.jsonl")
    assert (tmp_path / "recording.key").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["recording.key"]
