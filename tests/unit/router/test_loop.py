"""A server that dies while clients connect must not take the process with it: libuv aborts where a socket is closed twice."""

import subprocess
import sys

DYING_SERVERS = """
import asyncio, socket, struct
import aiohttp
from halffull.router.loop import Loop

async def reset(_reader, writer):
    await asyncio.sleep(0.002)  # in the midst of the handshake
    taken = writer.get_extra_info("socket")
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

async def ask(session, port):
    try:
        async with session.get(f"https://127.0.0.1:{port}/", ssl=False) as response:
            await response.read()
    except aiohttp.ClientConnectionError:
        return 1
    return 0

async def main():
    failed = 0
    async with aiohttp.ClientSession() as session:
        for number in range(100):
            server = await asyncio.start_server(reset, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            asking = [asyncio.ensure_future(ask(session, port)) for _ in range(12)]
            await asyncio.sleep(0.001 * (number % 5))
            server.close()
            failed += sum(await asyncio.gather(*asking))
            failed += sum(await asyncio.gather(*(ask(session, port) for _ in range(6))))
    print(failed)

with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(main())
"""


def test_servers_that_reset_tls_handshakes_abort_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", DYING_SERVERS], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1800\n"), done.stderr[-2000:]
