"""An operator without kopf on an API server in memory, with engines and a router that answer as told; for virtual time."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any

from halffull.controller.child import Settings
from halffull.controller.endpoints import Endpoint
from halffull.controller.facts import RouterAnswer
from halffull.controller.kube import ApiError
from halffull.controller.metrics import Metrics
from halffull.controller.names import Key
from halffull.controller.observed import Observed
from halffull.controller.queue import KeyedQueue
from halffull.controller.reconcile import Reconciler
from halffull.controller.records import Records
from halffull.controller.rounds import Rounds
from halffull.controller.tell import Teller
from halffull.core.values import Signals

KEY = Key("n", "d")


class Server:
    """An API server in memory: what was written, and when."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.written: list[tuple[float, str, str]] = []
        self.statuses: list[tuple[float, dict[str, Any]]] = []
        self.events: list[str] = []
        self.refuses: dict[str, ApiError] = {}
        self._version = 0

    def _store(self, document: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        metadata = {"uid": "x", **document["metadata"], "resourceVersion": str(self._version)}
        kept = json.loads(json.dumps({**document, "metadata": metadata}))
        self.objects[document["kind"], metadata["name"]] = kept
        self.written.append((asyncio.get_running_loop().time(), document["kind"], metadata["name"]))
        return kept

    async def apply(self, document: dict[str, Any], **_: str) -> dict[str, Any]:
        if document["kind"] in self.refuses:
            raise self.refuses[document["kind"]]
        return self._store(document)

    async def apply_status(self, document: dict[str, Any]) -> None:
        self.statuses.append((asyncio.get_running_loop().time(), document["status"]))

    async def create(self, document: dict[str, Any]) -> dict[str, Any] | None:
        if document["kind"] == "Event":
            self.events.append(document["reason"])
            return document
        if document["kind"] in self.refuses:
            raise self.refuses[document["kind"]]
        taken = (document["kind"], document["metadata"]["name"]) in self.objects
        return None if taken else self._store(document)

    async def get(self, kind: str, _: str, name: str) -> dict[str, Any] | None:
        return self.objects.get((kind, name))

    async def items(self, kind: str, _: str, *, labels: str | None = None, **__: Any) -> list[dict[str, Any]]:
        found = [document for (stored, _), document in self.objects.items() if stored == kind]
        return [document for document in found if labels is None or labels in document["metadata"]["labels"]]

    def config(self) -> dict[str, Any]:
        return json.loads(self.objects["ConfigMap", "d-router"]["data"]["router.json"])


class Engines:
    """In place of HTTP: `slow:1` runs at the given share of the speed of `fast:1`; the router applies what it is told."""

    def __init__(self, server: Server, share: float = 1.0, *, booked: bool = False) -> None:
        """`booked`: the router has eight requests at each, and sees their tokens."""
        self.server = server
        self.share = share
        self.booked = booked
        self._tokens = {"fast:1": 0.0, "slow:1": 0.0}
        self._at = 0.0

    async def engines(self, endpoints: Iterable[Endpoint], *_: Any) -> dict[str, Signals]:
        now = asyncio.get_running_loop().time()
        for name, rate in (("fast:1", 1000), ("slow:1", 1000 * self.share)):
            self._tokens[name] += rate * (now - self._at)
        self._at = now
        return {e.name: Signals(running=8, generation_tokens=self._tokens[e.name], prompt_tokens=0) for e in endpoints}

    async def routers(self, endpoints: Iterable[Endpoint], *_: Any) -> dict[str, RouterAnswer]:
        hash_ = self.server.config()["hash"]
        pages = [{"name": name, "inFlight": 8, "seenTokens": int(seen)} for name, seen in self._tokens.items()]
        document = {"config": {"hash": hash_}, "policy": "sal", "replicas": pages if self.booked else []}
        return {e.name: RouterAnswer(document) for e in endpoints}


class Operator:
    """The parts as `app` ties them, without kopf."""

    def __init__(self, server: Server, engines: Engines, *, patch_adopted: bool = False, **spec: Any) -> None:
        self.observed = Observed()
        self.records = Records()
        self.queue: KeyedQueue[Key] = KeyedQueue(self._work, lambda _, error: self.failures.append(error))
        self.failures: list[Exception] = []
        self.wrote: list[float] = []
        self.rounds = Rounds(
            self.observed,
            self.records,
            engines,  # type: ignore[arg-type]
            wake=self.queue.wake,
            metrics=Metrics(),
            rng=random.Random(1),
        )
        self._reconciler = Reconciler(
            server,  # type: ignore[arg-type]
            self.observed,
            self.records,
            Settings("halffull:1", patch_adopted),
            rounds=self.rounds,
            teller=Teller(server, "operator"),  # type: ignore[arg-type]
            wake_later=self.queue.wake_later,
            wrote=lambda _: self.wrote.append(asyncio.get_running_loop().time()),
        )
        self._generation = 0
        labels = {"halffull.dev/model-deployment": "d", "kubernetes.io/service-name": "d-peers"}
        peers = [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "router-x"}}]
        self.observed.saw_slice(
            None, {"metadata": {"name": "s", "namespace": "n", "labels": labels}, "endpoints": peers}
        )
        self.edit(**spec)

    async def _work(self, key: Key) -> None:
        await self._reconciler.reconcile(key)

    def edit(self, status: dict[str, Any] | None = None, **spec: Any) -> None:
        """Change the ModelDeployment."""
        self._generation += 1
        metadata = {"name": "d", "namespace": "n", "uid": "u", "generation": self._generation}
        defaults = {"model": "m", "engine": {"type": "vllm", "endpoints": ["fast:1", "slow:1"]}}
        document = {"kind": "ModelDeployment", "metadata": metadata, "spec": {**defaults, **spec}, "status": status}
        for key in self.observed.saw_deployment("MODIFIED", document):
            self.queue.wake(key)


@contextlib.asynccontextmanager
async def running(operator: Operator) -> AsyncIterator[None]:
    task = asyncio.create_task(operator.queue.run())
    try:
        yield
    finally:
        operator.rounds.stop()
        task.cancel()
        await asyncio.wait({task})


def reason(status: dict[str, Any], kind: str) -> str:
    return next(c["reason"] for c in status["conditions"] if c["type"] == kind)
