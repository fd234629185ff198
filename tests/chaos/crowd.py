"""Clients of the scenarios: send questions when they are due, whatever becomes of earlier ones, and check every byte.

Used by `stage`. What a `Front` says is where the next connection goes: one router, or several behind a `Service`.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Self

import aiohttp

from chaos.questions import Question, Questions
from halffull.local.client import FAILURES, failure

PATIENCE_S = 120.0
"""longest wait for one whole answer"""
Front = Callable[[], str]


@dataclass(slots=True)
class Outcome:
    """What became of one question."""

    due_s: float
    """seconds of the loop's clock, as all times here"""
    ended_s: float = 0.0
    ttft_s: float | None = None
    """from when it was due to the first byte of a streamed answer"""
    gap_s: float = 0.0
    """longest time between two pieces of a streamed answer"""
    failure: str = ""
    """why there is no complete answer; empty: there is one, right to the last byte"""
    cut: bool = False
    """its stream had begun and could not go on elsewhere; it ended with an error event, as it should"""


class Crowd:
    """Clients; an async context manager, at whose end all answers have come."""

    def __init__(self, front: Front, questions: Questions, *, rate: float, seed: int = 1, callers: int = 1) -> None:
        """`rate`: questions per second on average, at random times (a Poisson process); may be changed meanwhile.

        `callers`: as how many they are known to the router; each question is of any of them.
        """
        self.outcomes: list[Outcome] = []
        self.sent = 0
        self._front = front
        self._questions = questions
        self.rate = rate
        self._callers = callers
        self._who = Random(seed)
        self._rng = Random(seed)
        self._stopping = asyncio.Event()
        self._sending: asyncio.Task[None]
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=PATIENCE_S)
        )
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._stopping.set()
        await self._sending
        await self._session.close()

    async def seconds(self, seconds: float) -> None:
        """Go on for so long; raises what went wrong with the sending."""
        await asyncio.wait([self._sending], timeout=seconds)
        if self._sending.done():
            self._sending.result()

    async def answered(self, count: int, within_s: float = PATIENCE_S) -> None:
        """Return once so many more are answered. Raises TimeoutError."""
        goal = len(self.outcomes) + count
        async with asyncio.timeout(within_s):
            while len(self.outcomes) < goal:
                await self.seconds(0.05)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as open_questions:
            while not self._stopping.is_set():
                due += self._rng.expovariate(self.rate)
                try:
                    async with asyncio.timeout_at(due):
                        await self._stopping.wait()
                except TimeoutError:
                    open_questions.create_task(self.ask(due))

    async def ask(self, due: float) -> None:
        """Send one more question, and wait for its answer."""
        self.sent += 1
        question = self._questions.next()
        outcome = Outcome(due)
        try:
            await self._read(question, outcome)
        except FAILURES as error:
            outcome.failure = failure(error)
        outcome.ended_s = asyncio.get_running_loop().time()
        self.outcomes.append(outcome)

    async def _read(self, question: Question, outcome: Outcome) -> None:
        now = asyncio.get_running_loop().time
        headers = {
            "content-type": "application/json",
            "x-request-id": question.id,
            "x-halffull-caller": f"caller {self._who.randrange(self._callers)}",
        }
        body, last = b"", 0.0
        async with self._session.post(self._front() + question.path, data=question.body, headers=headers) as answer:
            async for piece in answer.content.iter_any():
                body += piece
                if question.stream and answer.status == 200:
                    if outcome.ttft_s is None:
                        outcome.ttft_s = now() - outcome.due_s
                    else:
                        outcome.gap_s = max(outcome.gap_s, now() - last)
                    last = now()
        if answer.status != 200:
            outcome.failure = f"{answer.status} {answer.headers.get('x-halffull-reason', '')}".strip()
        elif not question.answered_by(body):
            outcome.failure = judged(body)
            outcome.cut = question.stream and not question.resumable and outcome.failure.startswith("error event")


def judged(body: bytes) -> str:
    """Say what is wrong with an answer that is not the right one."""
    for event in reversed(body.split(b"\n\n")):
        if event.startswith(b"data: {") and b'"error"' in event:
            return f"error event {json.loads(event[6:])['error']['code']}"
    return "wrong bytes" if body.endswith((b"[DONE]\n\n", b"}")) else "ended early"


@dataclass
class Service:
    """What a Kubernetes Service is to clients: one of the routers that were ready `lag_s` ago."""

    lag_s: float = 1.0
    """a kube-proxy takes so long to hear that a router is ready no more"""
    look_s: float = 0.1
    _ready: dict[str, bool] = field(default_factory=dict)
    _rng: Random = field(default_factory=lambda: Random(3))

    def __call__(self) -> str:
        """Return the URL of one."""
        return self._rng.choice([url for url, ready in self._ready.items() if ready] or list(self._ready))

    async def follow(self, routers: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """Follow the routers, (URL, admin URL), until cancelled."""
        timeout = aiohttp.ClientTimeout(total=1.0)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as late:
            while True:
                now = dict(routers())
                for url in self._ready.keys() - now.keys():
                    del self._ready[url]
                for url, admin in now.items():
                    late.create_task(self._later(url, ready=await _ready(session, admin)))
                await asyncio.sleep(self.look_s)

    async def _later(self, url: str, *, ready: bool) -> None:
        await asyncio.sleep(self.lag_s)
        self._ready[url] = ready


async def _ready(session: aiohttp.ClientSession, admin: str) -> bool:
    try:
        async with session.get(f"{admin}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
