"""Leader election by a Lease: of several operators one acts. Started by `app` around the work of the leader.

A leader that dies is replaced after at most LEASE_S + RETRY_S; one that stops in good order gives the Lease back.
"""

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from halffull.controller.kube import ApiError, Document, Kube

LOG = logging.getLogger(__name__)
LEASE_S, RENEW_S, RETRY_S, CALL_S = 12, 8, 2, 2
"""Seconds: validity of the Lease; how long a leader tries to renew it before it stops acting; time between attempts;
time limit of one call. RETRY + RENEW < LEASE, so that a leader cut off stops before the next one starts."""


class LeaseLock(BaseLock):
    """The Lease as the election of the `kubernetes` package wants it, with our client's time limits.

    The package's own lock pulls in 26 MB of typed models, lets network errors end the election, and may hang in one
    call for longer than the Lease is valid.
    """

    def __init__(self, kube: Kube, namespace: str, name: str, identity: str) -> None:
        super().__init__(name, namespace, identity)
        self._kube = kube
        self._lease: Document | None = None

    async def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        """Read the Lease: `(True, record)`, or `(False, error)` with a body that says 404 where there is none."""
        try:
            async with asyncio.timeout(CALL_S):
                lease = await self._kube.get("Lease", namespace, name)
        except (ApiError, TimeoutError) as error:
            return False, ApiException(status=0, reason=str(error))
        if lease is None:
            absent = ApiException(status=404, reason="Not Found")
            absent.body = '{"code": 404}'
            return False, absent
        self._lease = lease
        spec = lease.get("spec", {})
        return True, LeaderElectionRecord(
            spec.get("holderIdentity") or None,
            str(spec.get("leaseDurationSeconds", "")) or None,
            spec.get("acquireTime"),
            spec.get("renewTime"),
        )

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        """Create the Lease; False if somebody else did."""
        document = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": _spec(election_record),
        }
        try:
            async with asyncio.timeout(CALL_S):
                self._lease = await self._kube.create(document)
        except (ApiError, TimeoutError) as error:
            LOG.warning("cannot create the Lease: %s", error)
            return False
        return self._lease is not None

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """Write the Lease as it was read, with this record; False if somebody wrote it since."""
        if self._lease is None:
            return False
        previous = self._lease.get("spec", {})
        spec = _spec(updated_record)
        transitions = previous.get("leaseTransitions", 0)
        if previous.get("holderIdentity") == spec["holderIdentity"]:
            spec["acquireTime"] = previous.get("acquireTime", spec["acquireTime"])
        else:
            transitions += 1
        return await self._write({**spec, "leaseTransitions": transitions})

    async def release(self) -> None:
        """Give the Lease back, so that another operator takes over at its next attempt."""
        if self._lease is not None and self._lease.get("spec", {}).get("holderIdentity") == self.identity:
            await self._write({**self._lease["spec"], "holderIdentity": ""})

    async def _write(self, spec: Document) -> bool:
        try:
            async with asyncio.timeout(CALL_S):
                self._lease = await self._kube.replace({**(self._lease or {}), "spec": spec})
        except (ApiError, TimeoutError) as error:
            LOG.warning("cannot write the Lease: %s", error)
            return False
        return True


class Election(LeaderElection):
    """The election of the package by the clock of the event loop.

    The package goes by the time of day: set back, a leader that cannot renew would act on for as long, and nobody would take
    over from one that died; set forth, the next one would start too early.
    """

    def __init__(self, lock: LeaseLock) -> None:
        super().__init__(Config(lock, LEASE_S, RENEW_S, RETRY_S, _nothing, _nothing))
        self._ahead = self._of_day()

    async def renew_loop(self) -> None:
        """Return once the Lease could not be renewed for RENEW_S."""
        while True:
            try:
                async with asyncio.timeout(RENEW_S):
                    await self.acquire()  # which tries until it has the Lease
            except TimeoutError:
                return
            await asyncio.sleep(RETRY_S)

    async def try_acquire_or_renew(self) -> bool:
        """Try once; what was noted by the time of day moves with it where it was set."""
        before, self._ahead = self._ahead, self._of_day()
        self.observed_time_milliseconds += round(1000 * (self._ahead - before))
        return await super().try_acquire_or_renew()

    @staticmethod
    def _of_day() -> float:
        """Return by how much the time of day is ahead of the loop's, seconds."""
        return time.time() - asyncio.get_running_loop().time()


def _spec(record: LeaderElectionRecord) -> Document:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        "holderIdentity": record.holder_identity,
        "leaseDurationSeconds": LEASE_S,
        "acquireTime": now,
        "renewTime": now,
    }


async def lead(lock: LeaseLock, act: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Wait for the Lease, then run `act` while we hold it; return whether `act` ended by itself (False: Lease lost).

    Raises what `act` raises. When `act` ends, and when this is cancelled, the Lease is given back.
    """
    election = Election(lock)
    await election.acquire()
    LOG.info("leading as %s", lock.identity)
    acting = asyncio.create_task(act(), name="leader")
    renewing = asyncio.create_task(election.renew_loop(), name="lease")
    try:
        await asyncio.wait({acting, renewing}, return_when=asyncio.FIRST_COMPLETED)
        if acting.done():
            acting.result()
            return True
        LOG.warning("the Lease is lost: no longer leading")
        return False
    finally:
        await _end(acting)
        lost = renewing.done()
        await _end(renewing)
        if not lost:
            await lock.release()


async def _nothing() -> None:
    """Stand in for the callbacks of the election, of which only the loops are used."""


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
