"""Streams that lose their replica after they started: what goes on elsewhere, what ends, and what the client sees."""

import asyncio
import json

import pytest

from halffull.router.answers.transcript import RAW_MOST
from halffull.router.observability.telemetry import Ended
from scripted_engines import ABORT, DEAD, DONE, PLAIN, ROLE, Answer, Engine, post, stream, until, whole, world


def said(*words: str, finish: str | None = None) -> tuple[bytes, ...]:
    events = [
        {
            "id": "one",
            "object": "chat.completion.chunk",
            "created": 7,
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}],
        }
        for word in words
    ]
    if finish:
        events[-1]["choices"][0]["finish_reason"] = finish
    return tuple(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def crlf(*events: bytes) -> tuple[bytes, ...]:
    return tuple(event.replace(b"\n", b"\r\n") for event in events)


def text_of(body: bytes) -> str:
    events = [json.loads(event[6:]) for event in body.split(b"\n\n") if event and not event.endswith(b"[DONE]")]
    assert "error" not in json.dumps(events)
    assert {event["id"] for event in events if event["choices"][0]["delta"].get("content")} == {"one"}
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


@pytest.mark.parametrize(
    "broken",
    [
        stream(ROLE, *said("a", " b"), end=False),
        stream(ROLE, *said("a", " b")),
        stream(ROLE, *said("a", " b"), said(" c")[0][:40], end=False),
        stream(ROLE, *said("a", " b"), ABORT, DONE),
        stream(ROLE, *said("a", " b"), DEAD, DONE),
        stream(*crlf(ROLE, *said("a", " b")), end=False),
    ],
    ids=["closed", "ended-early", "mid-event", "aborted", "dead", "crlf"],
)
async def test_a_started_stream_goes_on_elsewhere_unbroken(broken: Answer) -> None:
    going_on = stream(ROLE, *(event.replace(b"one", b"two") for event in said(" c", " d", finish="stop")), DONE)
    first, second = Engine(broken), Engine(going_on)
    async with world(first, second, resume=True) as w:
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":10}'
        while not first.requests:
            status, _, answer = await w.post(body)

        assert status == 200
        assert text_of(answer) == "a b c d"
        assert answer.endswith(DONE)
        assert answer.count(b'"role"') == 1
        went_on = json.loads(second.requests[-1].partition(b"\r\n\r\n")[2])
        assert went_on["messages"][-1] == {"role": "assistant", "content": "a b"}
        assert (went_on["continue_final_message"], went_on["add_generation_prompt"]) == (True, False)
        assert went_on["max_tokens"] == 8
        assert w.proxy.telemetry.continued == 1


@pytest.mark.parametrize(
    ("fields", "extra"),
    [(b',"tools":[]', b""), (b',"n":2', b""), (b',"logprobs":true', b""), (b"", b"x-halffull-resume: never\r\n")],
    ids=["tools", "n", "logprobs", "refused"],
)
async def test_what_cannot_be_continued_ends_with_an_error(fields: bytes, extra: bytes) -> None:
    engines = [Engine(stream(ROLE, *said("a "), end=False)) for _ in range(2)]
    async with world(*engines, resume=True) as w:
        _, _, answer = await w.post(b'{"messages":[{"content":"hi"}],"stream":true%b}' % fields, extra=extra)

        assert b'"code":"engine_broken"' in answer
        assert answer.endswith(DONE)
        assert w.proxy.telemetry.continued == 0


async def test_the_books_take_what_was_generated_for_prompt_where_it_goes_on() -> None:
    gap = asyncio.Event()
    first = Engine(stream(ROLE, *said("a", " b"), end=False))
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    second = Engine(stream(ROLE, *said("", " c", " d", finish="stop"), usage, DONE, gap=gap))
    async with world(first, second, resume=True) as w:
        told: list[Ended] = []
        w.proxy.witnesses.append(told.append)
        replica = w.proxy.dispatcher.books.replicas["r1"]
        reader, writer = await w.connect()
        writer.write(
            post(b'{"messages":[{"role":"user","content":"hi"}],"stream":true}', extra=b"connection: close\r\n")
        )
        await until(lambda: bool(second.requests))
        asked = w.proxy.telemetry.decisions[0].prompt_tokens
        assert (replica.prefill_tokens, replica.prefill_work, replica.waiting_prompt_tokens) == (asked + 2,) * 3
        assert w.proxy.telemetry.decisions[1].prompt_tokens == asked + 2
        gap.set()
        await asyncio.wait_for(reader.read(), 20)

        assert w.proxy.dispatcher.books.finished[-1][1] == told[0].generated_tokens == 4
        assert told[0].prompt_tokens == w.proxy.dispatcher.books.finished[-1][0].prompt_tokens == asked == 1
        assert replica.freed_tokens == asked + 4


async def test_a_stream_that_only_lacks_its_end_is_ended() -> None:
    for events, limit in ((said("a ", "b", finish="stop"), b""), (said("a ", "b"), b',"max_tokens":2')):
        engine = Engine(stream(ROLE, *events, end=False))
        async with world(engine, resume=True) as w:
            _, _, answer = await w.post(b'{"messages":[{"content":"hi"}],"stream":true%b}' % limit)

            assert text_of(answer) == "a b"
            assert answer.endswith(DONE)
            assert len(engine.requests) == 1


async def test_events_whose_lines_end_with_crlf_are_events() -> None:
    going_on = crlf(*(event.replace(b"one", b"two") for event in said(" c", finish="stop")), DONE)
    first, second = Engine(stream(ROLE, *said("a", " b"), end=False)), Engine(stream(*crlf(ROLE), *going_on))
    body = b'{"messages":[{"role":"user","content":"hi"}],"stream":true}'
    async with world(first, second, resume=True) as w:
        assert text_of((await w.post(body))[2]) == "a b c"
        second.script = [stream(*crlf(ROLE, *said("a", " b", finish="stop"), DONE))]
        assert text_of((await w.post(body))[2]) == "a b"
        assert w.proxy.telemetry.continued == 1


async def test_an_error_that_the_client_has_seen_is_the_end() -> None:
    error = b'data: {"error":{"message":"x","code":500}}\n\n'
    engine = Engine(stream(ROLE, *said("a"), error))
    async with world(engine, resume=True) as w:
        _, _, answer = await w.post(b'{"messages":[{"role":"user","content":"hi"}],"stream":true}')

        assert answer.count(error) == 1
        assert len(engine.requests) == 1


async def test_a_large_answer_that_is_no_stream_although_one_was_asked_for_is_relayed() -> None:
    large = b'{"choices":[{"message":{"content":"%b"}}]}' % (b"x" * 300_000)
    async with world(Engine(whole(large)), resume=True) as w:
        _, _, answer = await w.post(b'{"messages":[{"role":"user","content":"hi"}],"stream":true}')

        assert answer == large
        assert w.proxy.allowance.raw_bytes == RAW_MOST


@pytest.mark.parametrize("body", [b"{}", b" " * 300_000], ids=["small", "large"])
async def test_a_continuation_that_no_engine_takes_ends_with_an_error(body: bytes) -> None:
    engine = Engine(stream(ROLE, *said("a "), end=False), whole(body, b"400 Bad Request"))
    async with world(engine, resume=True) as w:
        _, _, answer = await w.post(b'{"messages":[{"content":"hi"}],"stream":true}')

        assert answer.count(b'"code":"engine_broken"') == 1
        assert answer.endswith(DONE)


async def test_an_engine_that_cannot_see_the_end_is_stopped_there() -> None:
    """A stop sequence spans the seam: the engine goes on, its client has its answer, and the next on the connection, too."""
    first = Engine(stream(ROLE, *said("a", " EN"), end=False))
    second = Engine(stream(ROLE, *said("D", " and", " on"), end=None), stream(ROLE, *said("c", finish="stop"), DONE))
    body = b'{"messages":[{"role":"user","content":"hi"}],"stream":true,"stop":["END"]}'
    async with world(first, second, resume=True) as w:
        reader, writer = await w.connect()
        writer.write(post(body))
        answer = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 20)

        assert answer.count(b'"finish_reason":"stop"') == 1
        assert b" and" not in answer
        await until(lambda: second.closed == 1)
        writer.write(post(body, extra=b"connection: close\r\n"))
        assert b'"c"' in await asyncio.wait_for(reader.read(), 20)


async def test_blanks_at_the_seam_come_once() -> None:
    """A chat template may take them off the end of the text that goes on, so they are not sent: the engine repeats them."""
    first = Engine(stream(ROLE, *said("a", "\n\n"), end=False))
    second = Engine(stream(ROLE, *said("\n", "\nb", finish="stop"), DONE))
    async with world(first, second, resume=True) as w:
        answer = b""
        while not first.requests:
            _, _, answer = await w.post(b'{"messages":[{"role":"user","content":"hi"}],"stream":true}')

        assert text_of(answer.replace(b'"two"', b'"one"')) == "a\n\nb"
        went_on = json.loads(second.requests[-1].partition(b"\r\n\r\n")[2])
        assert went_on["messages"][-1]["content"] == "a"


async def test_an_engine_that_has_died_is_left_before_the_start() -> None:
    """While its API server still answers: to a plain request with 500, to a stream with an event."""
    for body, death in (
        (b'{"messages":[{"content":"hi"}]}', whole(DEAD[6:-2], b"500 Internal Server Error")),
        (b'{"messages":[{"content":"hi"}],"stream":true}', stream(ROLE, DEAD, DONE)),
    ):
        good = whole(PLAIN) if b"stream" not in body else stream(ROLE, *said("b", finish="stop"), DONE)
        dying, living = Engine(death), Engine(good)
        async with world(dying, living) as w:
            while not dying.requests:
                status, _, answer = await w.post(body)

            assert status == 200
            assert b"EngineCore" not in answer
            assert w.proxy.telemetry.moves == {"engine_broken": 1}


async def test_other_errors_of_an_engine_are_its_answers() -> None:
    broken = b'{"error":{"message":"Internal server error","type":"InternalServerError","code":500}}'
    engine = Engine(whole(broken, b"500 Internal Server Error"))
    async with world(engine) as w:
        status, _, answer = await w.post(b'{"messages":[{"content":"hi"}]}')

        assert (status, answer) == (500, broken)


async def test_usage_is_asked_for_and_taken_out_again() -> None:
    def told(event: bytes, tokens: int) -> bytes:
        usage = b'"usage":{"prompt_tokens":4,"total_tokens":%d,"completion_tokens":%d}' % (4 + tokens, tokens)
        return event[:-3] + b"," + usage + b"}\n\n"

    events = [told(event, 3 * (n + 1)) for n, event in enumerate(said("a", "b", finish="stop"))]
    last = told(b'data: {"choices":[]}\n\n', 6)
    for asked, expected in ((b"", 0), (b',"stream_options":{"include_usage":true}', 1)):
        engine = Engine(stream(ROLE, *events, last, DONE))
        async with world(engine, resume=True) as w:
            _, _, answer = await w.post(b'{"messages":[{"content":"hi"}],"stream":true%b}' % asked)

            sent = json.loads(engine.requests[0].partition(b"\r\n\r\n")[2])
            assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
            assert answer.count(b'"usage"') == expected
            assert answer.count(b'"content": "') == len(events)
            assert answer.endswith(DONE)
            (replica,) = w.proxy.telemetry.replicas.values()
            assert (replica.prompt_tokens, replica.generated_tokens) == (4, 6)
