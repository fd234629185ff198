"""What people write and what models answer stays between them: it is in no log (at level debug, access log on), on no admin page.

A word that is found nowhere else is sent through every path that a request can take, errors included; then it is looked for.
"""

import asyncio
import urllib.request
from pathlib import Path

from processes import Running, running
from routers import ready_replicas, write_config
from scripted_engines import DONE, ROLE, Answer, Engine, hang, parse, reset, stream, whole

CANARY = "xylophone-quagga"
WORD = CANARY.encode()
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":" %b"},"finish_reason":null}]}\n\n' % WORD
PLAIN = (
    b'{"id":"c","choices":[{"message":{"content":"%b"},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":2}}'
    % WORD
)
CHAT = b'{"model":"m","messages":[{"role":"user","content":"%b"}],"user":"%b","stream":%%b}' % (WORD, WORD)


async def raw(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer that is no HTTP."""
    writer.write(b"%b\r\n\r\n" % WORD)
    writer.close()


ANSWERS: list[tuple[str, Answer]] = [
    ("plain", whole(PLAIN)),
    ("streamed", stream(ROLE, TOKEN, TOKEN, DONE)),
    ("refused", whole(PLAIN, b"503 " + WORD, b"x-why: %b\r\n" % WORD)),
    ("error", whole(b'{"error":{"message":"%b","code":400}}' % WORD, b"400 Bad Request")),
    ("failure", whole(b"%b" % WORD, b"500 " + WORD)),
    ("cut", stream(ROLE, TOKEN, end=False)),
    ("ended early", stream(ROLE, TOKEN)),
    ("error in the stream", stream(ROLE, TOKEN, b'data: {"error":{"message":"%b","code":500}}\n\n' % WORD, DONE)),
    ("busy in the stream", stream(b'data: {"error":{"message":"%b","code":503}}\n\n' % WORD, DONE)),
    ("odd event", stream(ROLE, b'data: {"choices":"%b\xff"}\n\n' % WORD, DONE)),
    ("no JSON", whole(WORD)),
    ("no HTTP", raw),
    ("bad length", whole(PLAIN, extra=b"content-length: %b\r\n" % WORD)),
    ("reset", reset),
]
BODIES = [
    (b"application/json", CHAT % b"false"),
    (b"application/json", CHAT % b"true"),
    (b"text/plain", WORD),
]
REFUSED = [
    (b"application/json", b'{"prompt":"%b"' % WORD),
    (b"application/json", b'["%b"]' % WORD),
    (b"application/json", b'{"prompt":"%b\xff"}' % WORD),
    (b"application/json", b'{"model":"%b","prompt":"%b"}' % (WORD, WORD)),
    (b"application/json", b'{"input":%b"%b"%b}' % (b"[" * 5000, WORD, b"]" * 5000)),
    (b"application/json", b'{"messages":"%b","stream":true}' % WORD),
]
GARBAGE = [
    b"%b\r\n\r\n" % WORD,
    b"POST /v1/completions?%b HTTP/1.1\r\nhost: x\r\nx: %b\x00\r\n\r\n" % (WORD, WORD),
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%b\r\n" % WORD,
    b"POST /sleep HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n%b" % WORD,
]


class Probed(Engine):
    """A scripted engine that is asked for its health and metrics too."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    await whole(b"")(head, reader, writer)
                    continue
                length = int(head.rpartition(b"content-length: ")[2])
                self.requests.append(head + await reader.readexactly(length))
                answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                await answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def request(kind: bytes, body: bytes, path: str = "/v1/chat/completions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CANARY}\r\ncookie: {CANARY}\r\nconnection: close\r\n"
    return head.encode() + b"content-type: %b\r\ncontent-length: %d\r\n\r\n" % (kind, len(body)) + body


async def ask(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return got


async def leave(port: int, engine: Engine) -> None:
    """Ask, and leave before the answer."""
    before = len(engine.requests)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(b"application/json", CHAT % b"true"))
    async with asyncio.timeout(30):
        while len(engine.requests) == before:
            await asyncio.sleep(0.01)
    writer.transport.abort()


def pages(router: Running) -> dict[str, str]:
    found = {}
    for path in ("/status", "/decisions?count=1000", "/metrics"):
        with urllib.request.urlopen(router.admin_url + path, timeout=30) as answer:
            found[path] = answer.read().decode()
    return found


async def test_no_text_is_logged_or_shown(tmp_path: Path) -> None:
    engine, config = Probed(whole(PLAIN)), tmp_path / "router.json"
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    write_config(
        config,
        [f"127.0.0.1:{server.sockets[0].getsockname()[1]}"],
        scheduling={"queue": {"timeoutSeconds": 1, "noReplicaSeconds": 1}},
        router={"drain": {"acceptSeconds": 0, "seconds": 5}, "accessLog": {"sample": 1}},
    )
    with running(tmp_path / "router", "router", "--config", str(config), "--log-level", "debug") as router:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(ready_replicas, router):
                await asyncio.sleep(0.05)
        relayed = 0
        for _, answer in ANSWERS:
            for kind, body in BODIES:
                engine.script = [answer, whole(PLAIN)]
                relayed += WORD in await ask(router.port, request(kind, body))
        assert relayed > len(ANSWERS), "the word did not even reach clients"
        for kind, body in REFUSED:
            await ask(router.port, request(kind, body))
        for data in GARBAGE:
            assert parse(await ask(router.port, data))[0] in {400, 403}
        engine.script = [hang]
        await leave(router.port, engine)
        shown = await asyncio.to_thread(pages, router)
    await engine.close()
    server.close()
    for path, text in shown.items():
        assert len(text) > 100, path
        assert CANARY not in text, path
    log = router.log.read_text()
    assert '"status":200' in log.replace(" ", ""), "the access log is off"
    assert CANARY not in log, [line for line in log.splitlines() if CANARY in line]
