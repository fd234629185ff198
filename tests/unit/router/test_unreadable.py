"""Bodies that are no JSON, no UTF-8 or nested too deeply: refused with a reason, or left to others, never raised."""

import pytest

from halffull.core.errors import Failure, Reason
from halffull.engines.base import Dialect
from halffull.router.answers import dialect
from halffull.router.requests import prompt

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}x",
        b"\xef\xbb\xbf{}",
        b'{"prompt":"\xbb"}',
        b'{"model":"\xff"}',
        b'{"messages":[{"content":[{"text":"\xbb"}]}]}',
        b'{"prompt":["\xbb"]}',
        b'{"model":1,"stream":"\xbb"}',
        b'{"input":%b}' % DEEP,
        b'{"x":%b}' % DEEP,
    ],
)
def test_requests(body: bytes) -> None:
    found = prompt.read(body)
    assert isinstance(found, Failure)
    assert found.reason is Reason.INVALID_BODY


def test_a_field_that_is_not_utf8_does_not_lose_an_alias() -> None:
    body = b'{"\xff":1,"model":"alias"}'
    assert isinstance(prompt.read(body), prompt.Prompt)
    assert prompt.with_model(body, "m") == body


@pytest.mark.parametrize(
    "data", [b'{"choices":"\xbb"}', b'{"id":"\xbb","usage":1}', b'{"choices":%b}' % DEEP, b'{"usage":{"x":%b}}' % DEEP]
)
def test_answers(data: bytes) -> None:
    assert dialect.meaning(Dialect.OPENAI, b"data: " + data) is dialect.Event.STARTED
    assert dialect.usage(data) == (None, None, None)
    assert dialect.stream_usage(b"data: " + data + b"\n\n") == (None, None)
