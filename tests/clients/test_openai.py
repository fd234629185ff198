"""The `openai` client against the router: plain, streamed, asynchronous, errors, timeouts."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import openai
import pytest

from clients.conftest import MODEL, Fleet, RunningRouter

MESSAGES = [{"role": "user", "content": "Say something."}]
LONG = {"model": MODEL, "prompt": "long", "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
Eventually = Callable[..., None]


@pytest.fixture
def client(router: RunningRouter) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_client(router: RunningRouter) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_plain_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_streamed_chat_comes_token_by_token(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(texts) > 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_the_streamed_answer_is_the_plain_one(client: openai.OpenAI) -> None:
    """Greedy answers of one engine repeat; a chunk lost or doubled on the way would show."""
    arguments = {"model": MODEL, "prompt": "one two three", "max_tokens": 24, "temperature": 0}
    plain = client.completions.create(**arguments)
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**arguments, stream=True))
    assert streamed
    assert streamed == plain.choices[0].text


def test_several_choices(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="hello", max_tokens=4, n=2)
    assert len(answer.choices) == 2


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="hello", max_output_tokens=6)
    assert answer.output_text
    kinds = [
        event.type for event in client.responses.create(model=MODEL, input="hello", max_output_tokens=6, stream=True)
    ]
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    assert kinds[-1] in {"response.completed", "response.incomplete"}


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.chat.completions.create(model="nope", messages=MESSAGES, max_tokens=1)


def test_refused_by_the_engine(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=99999)


async def test_many_streams_at_once_use_both_replicas(async_client: openai.AsyncOpenAI, router: RunningRouter) -> None:
    async def one(number: int) -> str:
        async with async_client.chat.completions.with_streaming_response.create(
            model=MODEL, messages=[{"role": "user", "content": f"question {number}"}], max_tokens=24, stream=True
        ) as answer:
            lines = [line async for line in answer.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        return answer.headers["x-halffull-replica"]

    served = Counter(await asyncio.gather(*(one(number) for number in range(32))))
    names = {replica["name"] for replica in router.replicas()}
    assert set(served) == names
    assert min(served.values()) >= 4


def test_timeout_of_the_client_frees_the_engine(
    client: openai.OpenAI, router: RunningRouter, fleet: Fleet, eventually: Eventually
) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).completions.create(**LONG)
    eventually(lambda: all(replica["inFlight"] == 0 for replica in router.replicas()))
    eventually(lambda: fleet.idle)


def test_a_stream_left_early_frees_the_engine(
    client: openai.OpenAI, router: RunningRouter, fleet: Fleet, eventually: Eventually
) -> None:
    stream = client.completions.create(**LONG, stream=True)
    assert next(iter(stream)).choices[0].text is not None
    assert sum(replica["inFlight"] for replica in router.replicas()) == 1
    stream.close()
    eventually(lambda: all(replica["inFlight"] == 0 for replica in router.replicas()))
    eventually(lambda: fleet.idle)


async def test_asynchronous_streams_are_cancelled_cleanly(
    async_client: openai.AsyncOpenAI, router: RunningRouter, fleet: Fleet
) -> None:
    async def one() -> None:
        stream = await async_client.completions.create(**LONG, stream=True)
        async for _ in stream:
            pass

    tasks = [asyncio.create_task(one()) for _ in range(4)]
    async with asyncio.timeout(30):
        while sum(replica["inFlight"] for replica in await asyncio.to_thread(router.replicas)) < 4:
            await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not await asyncio.to_thread(lambda: fleet.idle):
            await asyncio.sleep(0.05)
