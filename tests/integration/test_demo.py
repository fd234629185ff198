"""`halffull demo` as a process: it swaps the policy under load, loses nothing, reports, and leaves nothing behind."""

import asyncio
import json
import signal
import sys


async def start(*options):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "halffull", "demo", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


async def left_behind():
    table = await asyncio.create_subprocess_exec("ps", "-A", "-o", "args=", stdout=asyncio.subprocess.PIPE)
    out, _ = await table.communicate()
    return [line for line in out.decode().splitlines() if "halffull-demo-" in line]


async def test_the_policy_is_swapped_and_nothing_fails(tmp_path):
    figures = tmp_path / "figures.json"
    process = await start("--seconds", "8", "--json", str(figures))
    out, _ = await process.communicate()
    text = out.decode()

    assert process.returncode == 0, text
    found = json.loads(figures.read_text())
    assert found["failed"] == {}
    assert found["requests"] > 200
    assert found["swap"]["from"] == "round-robin"
    assert found["swap"]["to"] == "sal"
    assert found["before"]["requests"]["sent"] > 50
    assert found["after"]["requests"]["sent"] > 50
    assert len(found["before"]["replicas"]) == 4
    assert abs(found["before"]["slowReplicaShare"] - 0.25) < 0.05
    assert "demo: policy round-robin -> sal applied" in text
    assert "0 failed." in text
    assert "\x1b" not in text
    assert "Left out of the table" in text


async def test_ctrl_c_stops_all():
    process = await start("--seconds", "600")
    async with asyncio.timeout(90):
        while b"policy round-robin" not in await process.stdout.readline():
            assert process.returncode is None
    process.send_signal(signal.SIGINT)
    out, _ = await process.communicate()

    assert process.returncode == 130
    assert b"stopped" in out
    assert await left_behind() == []
