"""Sends one request to an OpenAI endpoint and measures its answer. Called by `replay`.

Times count from when a request was due, not from when it was sent, so that a slow sender cannot hide a slow server
(coordinated omission).
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import aiohttp

from halffull.local.answer import Answer, error_type
from halffull.local.prompts import Prompts
from halffull.sim.trace import Call


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go and what they look like."""

    url: str
    """e.g. http://127.0.0.1:8000"""
    model: str
    api: Literal["chat", "completions"] = "chat"
    timeout_s: float = 600.0
    """for one whole answer"""
    exact_output: bool = True
    """ask for exactly as many tokens as the trace says (`ignore_eos`, which vLLM and SGLang know); else at most"""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What became of one request."""

    call: Call
    stream: bool
    due_s: float
    """when it was due, seconds of the event loop's clock"""
    lag_s: float = 0.0
    """how much later it was sent"""
    replica: str = ""
    """the header x-halffull-replica, empty where there is none"""
    ttft_s: float | None = None
    """due to first token; None where none came, or where the answer is not streamed"""
    last_token_s: float | None = None
    """due to last token"""
    duration_s: float = 0.0
    """due to the end of the answer"""
    tokens: int = 0
    error: str | None = None
    """kind of failure; None: the answer is whole"""

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None where it cannot be seen."""
        if self.ttft_s is None or self.last_token_s is None or self.tokens < 2:
            return None
        return (self.last_token_s - self.ttft_s) / (self.tokens - 1)


FAILURES = (TimeoutError, aiohttp.ClientError, OSError)
"""what ends a request without an answer"""


def failure(error: BaseException) -> str:
    """Name one of them for people."""
    if isinstance(error, TimeoutError):
        return "timeout"
    return "cannot connect" if isinstance(error, aiohttp.ClientConnectorError) else f"broken: {type(error).__name__}"


class Client:
    """Connections to one target; an async context manager."""

    def __init__(self, target: Target, prompts: Prompts) -> None:
        self._target = target
        self._prompts = prompts
        path = "/v1/chat/completions" if target.api == "chat" else "/v1/completions"
        self._url = target.url.rstrip("/") + path
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self._target.timeout_s),
            headers={**self._target.headers, "Content-Type": "application/json"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._session.close()

    async def send(
        self, call: Call, due_s: float, *, stream: bool, first_token: Callable[[Outcome], None] | None = None
    ) -> Outcome:
        """Send one request, read the whole answer; failures are in the outcome, not raised."""
        now = asyncio.get_running_loop().time
        outcome = Outcome(call, stream, due_s, lag_s=now() - due_s)
        answer = Answer()
        try:
            async with self._session.post(self._url, data=self._body(call, stream=stream)) as response:
                outcome.replica = response.headers.get("x-halffull-replica", "")
                if response.status != 200:
                    reason = response.headers.get("x-halffull-reason") or error_type(await response.read())
                    outcome.error = f"HTTP {response.status} {reason}".rstrip()
                elif stream:
                    async for data in response.content.iter_any():
                        if answer.feed(data):
                            outcome.last_token_s = now() - due_s
                            if outcome.ttft_s is None:
                                outcome.ttft_s = outcome.last_token_s
                                if first_token:
                                    first_token(outcome)
                else:
                    answer.plain(await response.read())
        except FAILURES as error:
            outcome.error = failure(error)
        outcome.duration_s = now() - due_s
        outcome.tokens = answer.tokens
        outcome.error = outcome.error or answer.incomplete()
        return outcome

    def _body(self, call: Call, *, stream: bool) -> bytes:
        text = self._prompts.text(call)
        body: dict[str, object] = {"model": self._target.model, "max_tokens": call.output_tokens}
        if self._target.api == "chat":
            body["messages"] = [{"role": "user", "content": text}]
        else:
            body["prompt"] = text
        if self._target.exact_output:
            body["ignore_eos"] = True
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(body).encode()
