"""Children: healthy or an error with what they said, started again when they die, and none is left behind."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from halffull.local.process import Guard, Process, StartError


def python(code):
    return lambda: [sys.executable, "-c", code]


@asynccontextmanager
async def child(tmp_path, code, *, said=None, start_s=60.0):
    """A child that is healthy once it has made the file `healthy`, its working directory being the test's."""
    healthy = tmp_path / "healthy"

    async def look():
        return healthy.exists()

    with Guard() as watching:
        made = Process(
            "child",
            python(f"import os, sys, time; os.chdir({str(tmp_path)!r})\n{code}"),
            look,
            guard=watching,
            say=(said if said is not None else []).append,
            start_s=start_s,
        )
        yield made


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


SERVE = "open('healthy', 'w'); print('serving', flush=True); time.sleep(600)"


async def test_a_child_runs_until_it_is_stopped(tmp_path):
    said = []
    async with child(tmp_path, SERVE, said=said) as running:
        await running.start()
        pid = running.pid
        await until(lambda: "child: serving" in said)
        assert alive(pid)
        await running.stop(10.0)
        assert not alive(pid)
        assert running.pid is None


async def test_a_child_that_ends_before_it_serves_is_quoted(tmp_path):
    async with child(tmp_path, "print('no such model'); sys.exit(3)") as running:
        with pytest.raises(StartError, match=r"child ended with status 3 before it served\n  no such model"):
            await running.start()


async def test_a_command_that_is_not_there(tmp_path):
    async with child(tmp_path, "") as running:
        running._command = lambda: [str(tmp_path / "absent")]
        with pytest.raises(StartError, match=r"cannot be started: .*absent"):
            await running.start()


async def test_a_child_that_never_serves_is_ended(tmp_path):
    async with child(tmp_path, "time.sleep(600)", start_s=0.2) as running:
        with pytest.raises(StartError, match="did not serve within"):
            await running.start()
        assert running.pid is None


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path):
    async with child(tmp_path, "time.sleep(600)") as running:
        starting = asyncio.create_task(running.start())
        await until(lambda: running.pid)
        pid = running.pid
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not alive(pid)


async def test_a_child_that_dies_is_started_again(tmp_path):
    said = []
    async with child(tmp_path, SERVE, said=said) as running:
        await running.start()
        first = running.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: "child serves again" in said)
        assert running.pid not in {None, first}
        assert "child ended with status -9; starting it again" in said
        await running.stop(10.0)


async def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path):
    code = """
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("inner", "w").write(str(inner.pid))
open("healthy", "w")
time.sleep(600)
"""
    async with child(tmp_path, code) as running:
        await running.start()
        pid, inner = running.pid, int((tmp_path / "inner").read_text())
        await running.stop(0.2)
        assert not alive(pid)
        await until(lambda: not alive(inner) or reaped_by_nobody(inner))


def reaped_by_nobody(pid):
    """Whether it is dead and only waits for an init process that does not come (in some containers)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_guard_that_goes_ends_its_children(tmp_path):
    async with child(tmp_path, SERVE) as running:
        await running.start()
        pid = running.pid
        running._keeper.cancel()
    await until(lambda: running.pid is None)
    assert not alive(pid)


async def test_long_lines_do_not_stop_the_reading(tmp_path):
    said = []
    code = "print('x' * 300_000); print('after', flush=True); open('healthy', 'w'); time.sleep(600)"
    async with child(tmp_path, code, said=said) as running:
        await running.start()
        await until(lambda: "child: after" in said)
        await running.stop(10.0)
