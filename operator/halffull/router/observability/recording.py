"""Records what requests were like and what became of them, for `halffull simulate --trace`: never their text.

`app` makes one `Recorder`, the data path tells it of each end, `applier` turns it on and off, `admin` serves what was written. Lines
wait in memory and are written by a thread, so that a slow or full disk costs recorded requests and nothing else.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from halffull.api.router import Record
from halffull.router.observability.telemetry import Ended
from halffull.router.proxy import Proxy
from halffull.router.requests.blocks import BLOCK_BYTES

LOG = logging.getLogger(__name__)
FLUSH_S = 1.0
PENDING_BYTES = 4 << 20
"""lines that wait for the disk; further ones are dropped"""
PIECE_BYTES = 1 << 16
NAME_BYTES = 6
"""of a block's hash that are written: enough to tell a hundred thousand blocks apart, and exact in every JSON reader"""
ENCODE = msgspec.json.Encoder().encode
HEADER = ENCODE({"recording": 1, "blockBytes": BLOCK_BYTES}) + b"\n"


class Recorder:
    """Appends one line per request to a file; the file before it is kept until the next one is full, too."""

    def __init__(
        self,
        path: Path | None,
        proxy: Proxy,
        wall_clock: Callable[[], float],
        *,
        secret: Callable[[], bytes | None],
        always: bool,
    ) -> None:
        """`path` None: there is no place to write; `wall_clock` returns seconds since the epoch.

        `secret` returns what all routers of the ModelDeployment share; `always`: record also where no configuration says so.
        """
        self._path = path
        self._proxy = proxy
        self._wall_clock = wall_clock
        self._secret = secret
        self._always = always
        self._wanted: Record | None = None
        self._max_bytes = 0
        self._writing = asyncio.Lock()
        self._writer = ThreadPoolExecutor(1, "recording")
        """one thread, which a write that nobody waits for any more holds until it is done"""
        self._lines: list[bytes] = []
        self._pending = 0
        self.recorded = 0
        """requests since the start"""
        self.dropped = 0
        """requests that could not be written"""
        self.error = ""
        """why writing does not work now; empty: it does"""

    def configure(self, wanted: Record | None) -> None:
        """Record from now on as the configuration says; None: not at all."""
        self._wanted = wanted or (Record() if self._always else None)
        proxy, on = self._proxy, self._wanted is not None and self._keyed()
        if self._wanted is not None:
            self._max_bytes = self._wanted.max_bytes
        if on and self not in proxy.witnesses:
            proxy.witnesses.append(self)
        elif not on and self in proxy.witnesses:
            proxy.witnesses.remove(self)
        proxy.recording = on

    def _keyed(self) -> bool:
        """Have prompts hashed with a key that outlives this process; return whether there is a place for the recording."""
        if self._path is None:
            self._failed("there is no place for it: give --record FILE or --state-dir DIR")
            return False
        try:
            self._proxy.block_key = block_key(self._secret(), self._path)
        except OSError as error:
            self._failed(str(error))
            return False
        return True

    def figures(self) -> dict[str, Any] | None:
        """Return the part of `/status`; None: nothing is or was recorded."""
        if not self._proxy.recording and not self.recorded and not self.error:
            return None
        file = None if self._path is None else str(self._path)
        return {"file": file, "recorded": self.recorded, "dropped": self.dropped, "error": self.error or None}

    def __call__(self, ended: Ended) -> None:
        """A request has ended."""
        request = ended.request
        if request is None:
            return  # it was refused before it was read
        line = {
            "timestamp": round((self._wall_clock() - self._proxy.clock() + ended.arrived) * 1000, 3),
            "input_length": ended.prompt_tokens,
            "output_length": ended.generated_tokens,
            "hash_ids": [int.from_bytes(block[:NAME_BYTES]) for block in ended.blocks],
            "prompt_bytes": ended.prompt_bytes,
            "stream": request.stream,
            "max_tokens": request.max_tokens,
            "priority": request.priority,
            "caller": request.caller,
            "session": request.session,
            "status": ended.status,
            "reason": ended.reason,
            "replica": ended.replica,
            "attempts": ended.attempts,
            "sent": _after(ended.arrived, ended.sent_at),
            "ttft": _after(ended.arrived, ended.started_at),
            "duration": round(ended.ended_at - ended.arrived, 4),
        }
        if self._pending >= PENDING_BYTES:
            self.dropped += 1
            return
        data = ENCODE(line) + b"\n"
        self._lines.append(data)
        self._pending += len(data)

    async def run(self) -> None:
        """Write what waits, again and again; begin, once that can be done, where it could not."""
        while True:
            await asyncio.sleep(FLUSH_S)
            if self._wanted is not None and self._path is not None and not self._proxy.recording:
                self.configure(self._wanted)
                if self._proxy.recording:
                    self.error = ""
            await self.flush()

    async def flush(self) -> None:
        """Write what waits now, after what is being written."""
        loop = asyncio.get_running_loop()
        async with self._writing:
            if not self._lines or self._path is None:
                return
            lines, self._lines, self._pending = self._lines, [], 0
            try:
                await loop.run_in_executor(self._writer, append, self._path, b"".join(lines), self._max_bytes // 2)
            except OSError as error:
                self.dropped += len(lines)
                self._failed(str(error))
            else:
                self.recorded += len(lines)
                self.error = ""

    async def content(self) -> AsyncIterator[bytes]:
        """Return all that is kept, oldest first, in pieces. Raises OSError where it cannot be read."""
        await self.flush()
        for path in () if self._path is None else (older(self._path), self._path):
            if path.exists():
                with path.open("rb") as file:
                    while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                        yield piece

    def _failed(self, why: str) -> None:
        if not self.error:
            LOG.warning("requests are not recorded: %s", why)
        self.error = why


def older(path: Path) -> Path:
    """Return the place of the file that was full before this one."""
    return path.with_name(f"{path.name}.old")


def append(path: Path, data: bytes, most: int) -> None:
    """Append whole lines, or nothing; where the file would exceed `most` bytes, it becomes the older one.

    Raises OSError where the disk does not take them.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        size = 0
    if size and size + len(data) > most:
        path.replace(older(path))
        size = 0
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        whole = data if size else HEADER + data
        if os.write(file, whole) < len(whole):
            os.ftruncate(file, size)
            raise OSError("the disk is full")
    finally:
        os.close(file)


def block_key(secret: bytes | None, beside: Path) -> bytes:
    """Return the key of the hashes of prompts: from a secret that all routers share, else from a file beside the recording.

    So prompts that begin alike have the same hashes in all recordings of these routers, and say nothing to others.
    Raises OSError where the file can be neither read nor made.
    """
    if not secret:
        path = beside.with_name("recording.key")
        fresh = path.with_name(f"{path.name}.{os.getpid()}")  # whole at once: other workers may be at it, too
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(secrets.token_bytes(16))
        with suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
        secret = path.read_bytes()
    return blake2b(b"blocks of prompts", key=secret[:64], digest_size=16).digest()


def _after(start: float, moment: float | None) -> float | None:
    return None if moment is None else round(moment - start, 4)
