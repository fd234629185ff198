"""The order of things in a reconcile, on virtual time and an API server in memory: pacing, weights, failures, retries.

What a real API server makes of the same calls is tested in tests/cluster.
"""

import asyncio
import contextlib
import itertools
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
from virtual_time import on_virtual_time

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
        taken = (document["kind"], document["metadata"]["name"]) in self.objects
        return None if taken else self._store(document)

    async def get(self, kind: str, _: str, name: str) -> dict[str, Any] | None:
        return self.objects.get((kind, name))

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

    def __init__(self, server: Server, engines: Engines, **spec: Any) -> None:
        self.observed = Observed()
        self.records = Records()
        self.queue: KeyedQueue[Key] = KeyedQueue(self._work, lambda _, error: self.failures.append(error))
        self.failures: list[Exception] = []
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
            Settings("halffull:1"),
            rounds=self.rounds,
            teller=Teller(server, "operator"),  # type: ignore[arg-type]
            wake_later=self.queue.wake_later,
            wrote=lambda _: None,
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


@on_virtual_time
async def test_a_new_configuration_is_rolling_out_until_routers_report_it() -> None:
    server = Server()
    operator = Operator(server, Engines(server))
    async with running(operator):
        await asyncio.sleep(10)
        assert reason(server.statuses[-1][1], "PolicyApplied") == "Applied"
        count = len(server.statuses)
        operator.edit(scheduling={"policy": "random"})
        await asyncio.sleep(3)

    rolling, applied = (status for _, status in server.statuses[count:])
    assert (reason(rolling, "PolicyApplied"), rolling["policy"]) == ("RollingOut", "random")
    assert rolling["observedGeneration"] == 2
    assert reason(applied, "PolicyApplied") == "Applied"
    assert server.events.count("PolicyApplied") == 2


@on_virtual_time
async def test_the_configuration_goes_before_the_other_children() -> None:
    server = Server()
    async with running(Operator(server, Engines(server))):
        await asyncio.sleep(1)

    assert server.written[0][1:] == ("ConfigMap", "d-router")
    assert {kind for _, kind, _ in server.written} > {"Deployment", "Secret", "Role"}


@on_virtual_time
async def test_a_status_is_written_once_a_second_at_most() -> None:
    server = Server()
    operator = Operator(server, Engines(server))
    async with running(operator):
        for number in range(50):
            operator.edit(modelAliases=[f"alias-{number}"])
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)

    times = [at for at, _ in server.statuses]
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(times))
    assert len(times) >= 4
    assert server.statuses[-1][1]["observedGeneration"] == 51


@on_virtual_time
async def test_nothing_is_written_while_nothing_changes() -> None:
    server = Server()
    async with running(Operator(server, Engines(server))):
        await asyncio.sleep(400)  # until the scale signal has settled, too
        writes, statuses = len(server.written), len(server.statuses)
        await asyncio.sleep(3600)

    assert len(server.written) == writes
    assert len(server.statuses) == statuses


@on_virtual_time
async def test_a_slow_replica_gets_a_weight_that_is_renewed_and_lifted() -> None:
    server = Server()
    engines = Engines(server, share=0.5)
    async with running(Operator(server, engines)):
        await asyncio.sleep(120)
        config = server.config()
        assert list(config["balance"]["replicas"]) == ["slow:1"]
        entry = config["balance"]["replicas"]["slow:1"]
        assert 0.4 <= entry["weight"] <= 0.7
        assert "of the fastest" in entry["reason"]
        assert server.events.count("Rebalanced") == 1
        row = next(row for row in server.statuses[-1][1]["replicas"] if row["name"] == "slow:1")
        assert (row["weight"], row["reason"]) == (entry["weight"], entry["reason"])

        before = config["balance"]["renewed"]
        await asyncio.sleep(60)  # routers drop it after 60 s unless the document changes
        assert 2 <= server.config()["balance"]["renewed"] - before <= 4
        assert server.config()["hash"] == config["hash"]

        engines.share = 1.0
        await asyncio.sleep(180)
        assert server.config()["balance"]["replicas"] == {}
        renewed = server.config()["balance"]["renewed"]
        await asyncio.sleep(120)
        assert server.config()["balance"]["renewed"] == renewed


@on_virtual_time
async def test_a_replica_that_stands_still_is_suspended_told_once_and_tried_again() -> None:
    server = Server()
    engines = Engines(server, booked=True)
    async with running(Operator(server, engines)):
        await asyncio.sleep(60)
        assert server.config()["balance"]["replicas"] == {}
        engines.share = 0.0
        await asyncio.sleep(60)
        entry = server.config()["balance"]["replicas"]["slow:1"]
        assert entry["suspended"]
        assert "no token for 30 s" in entry["reason"]
        row = next(row for row in server.statuses[-1][1]["replicas"] if row["name"] == "slow:1")
        assert (row["suspended"], row["reason"]) == (True, entry["reason"])
        assert (server.events.count("ReplicaSuspended"), server.events.count("ReplicaResumed")) == (1, 0)

        engines.share = 1.0
        await asyncio.sleep(300)
        assert server.config()["balance"]["replicas"] == {}
        assert (server.events.count("ReplicaSuspended"), server.events.count("ReplicaResumed")) == (1, 1)


@on_virtual_time
async def test_a_restart_keeps_weights_and_claims_nothing_else() -> None:
    server = Server()
    async with running(Operator(server, Engines(server, share=0.5))):
        await asyncio.sleep(120)
    before = server.config()

    statuses = len(server.statuses)

    async with running(Operator(server, Engines(server, share=0.5), status=server.statuses[-1][1])):
        await asyncio.sleep(10)

    assert {reason(status, "PolicyApplied") for _, status in server.statuses[statuses:]} <= {"Applied"}
    after = server.config()
    assert after["balance"]["replicas"] == before["balance"]["replicas"]
    assert after["hash"] == before["hash"]


@on_virtual_time
async def test_a_child_that_is_refused_is_told_and_tried_again() -> None:
    server = Server()
    server.refuses["Deployment"] = ApiError(422, 'patch d-router: spec.template: Invalid value: "x"')
    operator = Operator(server, Engines(server))
    async with running(operator):
        await asyncio.sleep(5)
        assert reason(server.statuses[-1][1], "Ready") == "ChildRefused"
        assert ("PodDisruptionBudget", "d-router") in server.objects  # the others are there all the same
        assert server.events.count("ChildRefused") == 1

        server.refuses.clear()
        await asyncio.sleep(40)
        assert reason(server.statuses[-1][1], "Ready") != "ChildRefused"
    assert ("Deployment", "d-router") in server.objects


@on_virtual_time
async def test_a_patch_without_names_is_told() -> None:
    server = Server()
    patch = {"spec": {"containers": [{"image": "x"}]}}
    operator = Operator(server, Engines(server), router={"podTemplatePatch": patch})
    async with running(operator):
        await asyncio.sleep(5)

    ready = next(c for c in server.statuses[-1][1]["conditions"] if c["type"] == "Ready")
    assert (ready["reason"], ready["message"]) == (
        "ChildRefused",
        "podTemplatePatch: each element of containers needs 'name'",
    )


@on_virtual_time
async def test_an_outage_is_tried_again_until_it_ends() -> None:
    server = Server()
    server.refuses = dict.fromkeys(("ConfigMap", "Deployment"), ApiError(0, "connection refused"))
    operator = Operator(server, Engines(server))
    async with running(operator):
        await asyncio.sleep(30)
        assert len(operator.failures) >= 5
        assert server.statuses == []

        server.refuses.clear()
        await asyncio.sleep(60)

    assert server.config()["scheduling"]["policy"] == "sal"
    assert ("Deployment", "d-router") in server.objects


@on_virtual_time
async def test_a_resource_that_is_gone_is_left_alone() -> None:
    server = Server()
    operator = Operator(server, Engines(server))
    async with running(operator):
        await asyncio.sleep(3)
        gone = operator.observed.deployments[KEY]
        for key in operator.observed.saw_deployment("DELETED", gone):
            operator.queue.wake(key)
        await asyncio.sleep(1)
        writes = len(server.written) + len(server.statuses)
        await asyncio.sleep(120)

    assert len(server.written) + len(server.statuses) == writes
    assert operator.records.get(KEY) is None
