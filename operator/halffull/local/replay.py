"""Sends calls when they are due, whatever becomes of the earlier ones (open loop). Called by `load` and `demo`."""

import asyncio
from collections.abc import Callable, Iterable
from random import Random

from halffull.local.client import Client, Outcome
from halffull.sim.trace import Call


class Replay:
    """One replay and how far it is."""

    def __init__(
        self,
        client: Client,
        *,
        stream_share: float,
        rng: Random,
        ended: Callable[[Outcome], None],
        first_token: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._client = client
        self._stream_share = stream_share
        self._rng = rng
        self._ended = ended
        self._first_token = first_token
        self._stop = asyncio.Event()
        self.sent = 0
        self.in_flight = 0

    def stop(self) -> None:
        """Send no more; what is in flight is waited for."""
        self._stop.set()

    async def run(self, calls: Iterable[Call]) -> None:
        """Send all calls, return when every answer has ended; on cancellation open answers are dropped."""
        now = asyncio.get_running_loop().time
        start = now()
        async with asyncio.TaskGroup() as answers:
            for call in calls:
                due = start + call.at_s
                if due > now() and await self._stopped_before(due):
                    break
                if self._stop.is_set():
                    break
                self.sent += 1
                self.in_flight += 1
                answers.create_task(self._one(call, due))

    async def _stopped_before(self, due: float) -> bool:
        try:
            async with asyncio.timeout_at(due):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def _one(self, call: Call, due: float) -> None:
        stream = self._rng.random() < self._stream_share
        outcome = await self._client.send(call, due, stream=stream, first_token=self._first_token)
        self.in_flight -= 1
        self._ended(outcome)
