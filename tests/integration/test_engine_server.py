"""What the simulated engine does beside the form of its answers: text, continuation, load, refusals, disconnects, clocks."""

import asyncio
import json
import re

import aiohttp
import openai
import pytest

from simulated_engines import simulated_engine

pytestmark = pytest.mark.uncompiled

MESSAGES = [{"role": "user", "content": "tell me a story"}]


@pytest.fixture
async def engine():
    async with simulated_engine() as engine:
        yield engine


@pytest.fixture
async def client(engine):
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def gauges(engine):
    """Running and waiting, as a scrape shows them."""
    async with aiohttp.ClientSession() as session, session.get(f"{engine.url}/metrics") as answer:
        text = await answer.text()
    return [
        float(re.search(rf"^vllm:num_requests_{name}\S* (\S+)$", text, re.MULTILINE)[1])
        for name in ("running", "waiting")
    ]


async def shows(engine, expected, seconds=30):
    """Wait until a scrape shows these gauges, which lag."""
    async with asyncio.timeout(seconds):
        while await gauges(engine) != expected:
            await asyncio.sleep(0.02)


async def until(condition, seconds=30):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def streamed(client, **body):
    stream = await client.chat.completions.create(model="tiny", stream=True, **body)
    return [chunk async for chunk in stream]


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_streamed_and_plain_answers_are_the_same_text(client):
    chunks = await streamed(client, messages=MESSAGES, max_tokens=40)
    plain = await client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=40)
    assert text_of(chunks) == plain.choices[0].message.content
    assert plain.choices[0].finish_reason == chunks[-1].choices[0].finish_reason


async def test_an_answer_cut_off_and_continued_is_the_answer(client):
    extra = {"ignore_eos": True}
    whole = text_of(await streamed(client, messages=MESSAGES, max_tokens=30, extra_body=extra))
    head = text_of(await streamed(client, messages=MESSAGES, max_tokens=13, extra_body=extra))
    so_far = [*MESSAGES, {"role": "assistant", "content": head}]
    extra |= {"continue_final_message": True, "add_generation_prompt": False}
    tail = text_of(await streamed(client, messages=so_far, max_tokens=17, extra_body=extra))
    assert head + tail == whole

    prompt = {"model": "tiny", "prompt": "It began", "extra_body": {"ignore_eos": True}}
    first = await client.completions.create(max_tokens=30, **prompt)
    cut = await client.completions.create(max_tokens=13, **prompt)
    rest = await client.completions.create(max_tokens=17, **prompt | {"prompt": "It began" + cut.choices[0].text})
    assert cut.choices[0].text + rest.choices[0].text == first.choices[0].text


async def test_usage_counts_one_token_per_event(client):
    chunks = await streamed(
        client, messages=MESSAGES, max_tokens=9, stream_options={"include_usage": True}, extra_body={"ignore_eos": True}
    )
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) == 9
    assert chunks[-1].usage.completion_tokens == 9
    plain = await client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=1)
    assert plain.usage.prompt_tokens == chunks[-1].usage.prompt_tokens


async def test_continuous_usage_grows_by_one_per_event(client):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await streamed(
        client, messages=MESSAGES, max_tokens=5, stream_options=options, extra_body={"ignore_eos": True}
    )
    assert [chunk.usage.completion_tokens for chunk in chunks] == [0, 1, 2, 3, 4, 5, 5]


async def test_without_a_limit_an_answer_ends_by_itself_at_the_same_place_every_time(client):
    first, again = [await client.chat.completions.create(model="tiny", messages=MESSAGES) for _ in range(2)]
    assert first.choices[0].finish_reason == "stop"
    assert first.choices[0].message.content == again.choices[0].message.content
    assert first.usage.completion_tokens == len(first.choices[0].message.content.split()) + 1, "its end is a token"


async def test_min_tokens_puts_off_the_end(client):
    body = {"model": "tiny", "messages": MESSAGES}
    natural = (await client.chat.completions.create(**body)).usage.completion_tokens
    longer = await client.chat.completions.create(extra_body={"min_tokens": natural + 10}, **body)
    assert longer.usage.completion_tokens > natural + 10
    exact = {"min_tokens": natural + 10}
    answer = await client.chat.completions.create(max_tokens=natural + 10, extra_body=exact, **body)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (natural + 10, "length")


async def test_a_stop_string_ends_the_answer_before_it(client):
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 30, "extra_body": {"ignore_eos": True}}
    whole = (await client.chat.completions.create(**body)).choices[0].message.content
    stop = " ".join(whole.split()[9:11])
    answer = (await client.chat.completions.create(stop=[stop, "nowhere"], **body)).choices[0]
    assert answer.message.content == whole[: whole.index(stop)]
    assert (answer.finish_reason, answer.model_extra["stop_reason"]) == ("stop", stop)
    assert text_of(await streamed(client, messages=MESSAGES, max_tokens=30, stop=stop)) == answer.message.content


async def test_several_prompts_and_answers_are_numbered(client):
    answer = await client.completions.create(model="tiny", prompt=["one", [7, 8, 9]], n=2, max_tokens=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text == answer.choices[1].text != answer.choices[2].text
    assert answer.usage.prompt_tokens == 1 + 3


async def test_the_openai_client_raises_its_own_errors(client):
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await client.chat.completions.create(model="other", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        await client.completions.create(model="tiny", prompt="word " * 5000, max_tokens=1)
    with pytest.raises(openai.BadRequestError, match="Field required"):
        await client.post("/completions", cast_to=object, body={"model": "tiny"})


async def test_responses_and_messages_give_the_chats_text(client, engine):
    chat = await client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=8)
    response = await client.responses.create(model="tiny", input="tell me a story", max_output_tokens=8)
    assert response.output_text == chat.choices[0].message.content
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 8}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{engine.url}/v1/messages", json=body) as answer:
            message = await answer.json()
        async with session.post(f"{engine.url}/v1/messages", json=body | {"model": "x"}) as answer:
            refused = await answer.json()
    assert message["content"][0]["text"] == chat.choices[0].message.content
    assert refused["type"] == "error"
    assert answer.status == 404


async def test_tokens_and_back(engine):
    text = "  Once upon\na wonderful time "
    async with aiohttp.ClientSession(engine.url) as session:
        asked = {"prompt": text, "return_token_strs": True}
        async with session.post("/tokenize", json=asked) as answer:
            tokenized = await answer.json()
        async with session.post("/detokenize", json={"tokens": tokenized["tokens"]}) as answer:
            assert await answer.json() == {"prompt": text}
        async with session.post("/tokenize", json={"messages": MESSAGES}) as answer:
            assert (await answer.json())["count"] == 7
    assert tokenized["count"] == len(tokenized["tokens"]) == 6
    assert "".join(tokenized["token_strs"]) == text


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_frees_its_sequences(stream):
    body = {"model": "tiny", "prompt": "x", "max_tokens": 4000, "n": 2, "ignore_eos": True, "stream": stream}
    async with simulated_engine(scale=1.0) as engine:  # left alone, the answers take 40 s
        async with aiohttp.ClientSession(engine.url) as session:
            asking = asyncio.ensure_future(session.post("/v1/completions", json=body))
            await shows(engine, [2, 0])
            if asking.done():
                asking.result().close()
            else:
                asking.cancel()
        await until(lambda: engine.server.pace.in_flight == 0, seconds=20)
        await shows(engine, [0, 0], seconds=20)


async def test_gauges_lag():
    async with simulated_engine(metrics_lag=1e6) as engine, aiohttp.ClientSession(engine.url) as session:
        body = {"model": "tiny", "prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        async with session.post("/v1/completions", json=body) as answer:
            await answer.content.readline()
            assert engine.server.pace.in_flight == 1
            assert await gauges(engine) == [0, 0]


@pytest.mark.parametrize(("form", "stream"), [("status", True), ("event", True), ("race", True), ("event", False)])
async def test_a_full_engine_refuses_in_both_of_vllms_forms(root, form, stream):
    from halffull.sim.server import BusyForm

    body = {"model": "tiny", "prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    async with (
        simulated_engine(max_queued=2, busy_form=BusyForm(form)) as engine,
        aiohttp.ClientSession(engine.url) as session,
        session.post("/v1/completions", json=body) as first,
        session.post("/v1/completions", json=body) as second,
    ):
        await first.content.readline()
        await second.content.readline()
        async with session.post("/v1/completions", json=body | {"stream": stream}) as refused:
            text = await refused.text()
    late = form == "event" and stream
    assert (first.status, second.status, refused.status) == (200, 200, 200 if late else 503)
    name = "err_busy_in_stream" if late else "err_busy"
    recorded = (root / f"tests/recordings/vllm-0.32/{name}.http").read_bytes().partition(b"\r\n\r\n")[2].decode()
    if late:
        assert text.endswith("\n\ndata: [DONE]\n\n")
        assert json.loads(text.splitlines()[0][6:]) == json.loads(recorded.splitlines()[0][6:])
    else:
        assert "x-request-id" not in refused.headers
        assert json.loads(text) == json.loads(recorded)


async def test_streams_that_race_for_the_last_place_are_refused_in_both_forms_or_served():
    body = {"model": "tiny", "prompt": "x", "max_tokens": 2000, "ignore_eos": True, "stream": True}

    async def one(session):
        async with session.post("/v1/completions", json=body) as answer:
            return answer.status, await answer.content.readline()

    async with simulated_engine(max_queued=4) as engine, aiohttp.ClientSession(engine.url) as session:
        answers = await asyncio.gather(*(one(session) for _ in range(30)))
    served = [status for status, line in answers if status == 200 and b'"error"' not in line]
    assert len(served) >= 4
    assert {status for status, _ in answers} <= {200, 503}
    assert any(b"busy" in line for _, line in answers)


async def test_metrics_count_what_was_served(engine, client):
    await client.completions.create(model="tiny", prompt="a b c d", max_tokens=10, extra_body={"ignore_eos": True})
    async with aiohttp.ClientSession(engine.url) as session, session.get("/metrics") as answer:
        text = await answer.text()

    def value(name):
        return float(re.search(rf"^vllm:{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])

    own = '{engine="0",model_name="tiny"}'
    assert value(f"prompt_tokens_total{own}") == 4
    assert value(f"generation_tokens_total{own}") == 10
    assert value(f"time_to_first_token_seconds_count{own}") == 1
    assert value(f"inter_token_latency_seconds_count{own}") == 9
    assert value(f"iteration_tokens_total_sum{own}") == 4 + 10
    assert value('request_success_total{engine="0",finished_reason="length",model_name="tiny"}') == 1


async def test_a_prefix_cache_is_seen_in_usage_and_metrics():
    body = {"model": "tiny", "prompt": "word " * 100, "max_tokens": 1}
    async with simulated_engine(prefix_cache=True) as engine, aiohttp.ClientSession(engine.url) as session:
        cached = []
        for _ in range(2):
            async with session.post("/v1/completions", json=body) as answer:
                cached.append((await answer.json())["usage"]["prompt_tokens_details"]["cached_tokens"])
        async with session.get("/metrics") as answer:
            assert re.search(r"^vllm:prefix_cache_hits_total\S* 96.0$", await answer.text(), re.MULTILINE)
    assert cached == [0, 96]


async def test_a_key_is_asked_for_under_v1_alone():
    async with simulated_engine(api_key="secret") as engine, aiohttp.ClientSession(engine.url) as session:
        async with session.get("/v1/models") as refused:
            assert (refused.status, await refused.json()) == (401, {"error": "Unauthorized"})
        async with session.get("/v1/models", headers={"Authorization": "Bearer secret"}) as allowed:
            assert allowed.status == 200
        async with session.get("/metrics") as answer:
            assert answer.status == 200


async def test_wrong_fields_are_named(engine):
    wrong = {
        "n": {"n": 0},
        "stop": {"stop": [""]},
        "max_tokens": {"max_tokens": 0},
        "min_tokens": {"max_tokens": 2, "min_tokens": 3},
        "stream_options": {"stream_options": {"include_usage": True}},
        "stream": {"stream": "yes"},
        "prompt": {"prompt": []},
    }
    async with aiohttp.ClientSession(engine.url) as session:
        for param, fields in wrong.items():
            body = {"model": "tiny", "prompt": "x"} | fields
            async with session.post("/v1/completions", json=body) as answer:
                assert (answer.status, (await answer.json())["error"]["param"]) == (400, param)
        both = {"continue_final_message": True, "model": "tiny", "messages": MESSAGES}
        async with session.post("/v1/chat/completions", json=both) as answer:
            assert answer.status == 400
        async with session.post("/v1/completions", data="prompt=x") as answer:
            assert answer.status == 400
        async with session.get("/v1/completions") as answer:
            assert (answer.status, await answer.json()) == (405, {"detail": "Method Not Allowed"})
        async with session.get("/v1/responses/resp_1") as answer:
            assert answer.status == 404
        async with session.post("/v1/messages/count_tokens", json={"messages": MESSAGES}) as answer:
            assert await answer.json() == {"input_tokens": 7}
        async with session.get("/version") as answer:
            assert (await answer.json())["version"].startswith("0.32")
