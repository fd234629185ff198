"""Byte streams for tests of HTTP framing: valid requests, and what makes them invalid or ambiguous. Seeds of properties and fuzz."""

import random

NASTY = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xff", b"0", b"1", b"a", b"-", b"+", b"_",
    b"\r\n\r\n", b"\r\n ", b"0\r\n\r\n", b"5\r\nhello\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"Host: y\r\n", b"HTTP/1.0", b"HTTP/2.0", b"http://x", b"/../", b"%2e%2e", b"#", b"chunked", b"Connection: close\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", b"X: y\r\n",
]  # fmt: skip
"""what is put into valid streams"""
REQUESTS = [
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"HEAD /health HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    b"GET http://x:1/v1/models?a=b HTTP/1.1\r\nHost: x:1\r\nAccept: */*\r\n\r\n",
    b"GET /v1/models HTTP/1.0\r\nHost: x\r\n\r\n",
    b"DELETE /v1/responses/resp_1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"prompt":"a"}',
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX: \xe4 \t\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n{}",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;a=b\r\n}\r\n0\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\ntransfer-encoding: CHUNKED\r\nTrailer: t\r\n\r\n002\r\n{}\r\n0\r\nT: v\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, X-Hop\r\nUpgrade: h2c\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc",
]
"""each is accepted"""


def mutated(rng: random.Random, data: bytes, edits: int) -> bytes:
    """Return `data` with this many places changed."""
    made = bytearray(data)
    for _ in range(edits):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(6):
            case 0 | 1:
                made[at:at] = rng.choice(NASTY)
            case 2:
                made[at : at + rng.randrange(1, 4)] = rng.choice(NASTY)
            case 3:
                del made[at : at + rng.randrange(1, 9)]
            case 4:
                made[at:at] = made[at : at + rng.randrange(1, 40)]
            case _:
                made[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(made)


def cut(rng: random.Random, data: bytes, most: int) -> list[bytes]:
    """Return `data` in at most this many reads."""
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(most)))
    return [piece for start, end in zip([0, *places], [*places, len(data)], strict=True) if (piece := data[start:end])]
