"""The order of things in a reconcile, on virtual time and an API server in memory: pacing, weights, failures, retries.

What a real API server makes of the same calls is tested in tests/cluster.
"""

import asyncio
import base64
import itertools
from typing import Any

from halffull.controller.kube import ApiError
from halffull.core.balance import Change
from in_memory_operator import KEY, Engines, Operator, Server, reason, running
from virtual_time import on_virtual_time


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
async def test_a_weight_does_not_lapse_between_rare_rounds() -> None:
    server = Server()
    async with running(
        Operator(server, Engines(server, share=0.5), scheduling={"rebalance": {"intervalSeconds": 100}})
    ):
        await asyncio.sleep(900)
        balance = server.config()["balance"]
        assert list(balance["replicas"]) == ["slow:1"]
        renewed = []
        for _ in range(6):
            await asyncio.sleep(balance["validSeconds"])
            renewed.append(server.config()["balance"]["renewed"])
    assert all(later > earlier for earlier, later in itertools.pairwise([balance["renewed"], *renewed]))


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
    assert after["balance"]["renewed"] == before["balance"]["renewed"] + 1  # how old it is by now is not known
    assert after["hash"] == before["hash"]


@on_virtual_time
async def test_whoever_waits_for_a_status_hears_of_one_that_is_right_as_it_stands() -> None:
    server = Server()
    operator = Operator(server, Engines(server))
    operator.observed._slices.clear()  # no router yet: nothing in the status tells of a configuration
    async with running(operator):
        await asyncio.sleep(10)
        heard, statuses = len(operator.wrote), len(server.statuses)
        operator.edit(router={"retries": {"attempts": 1}})
        operator.observed.deployments[KEY]["metadata"]["generation"] = 1
        await asyncio.sleep(10)

    assert len(server.statuses) == statuses
    assert len(operator.wrote) == heard + 1


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


@on_virtual_time
async def test_a_resource_that_goes_while_it_is_looked_at_is_no_failure() -> None:
    class Quick(Server):
        """Deletes the resource once its ConfigMap is asked for."""

        async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
            if kind == "ConfigMap" and KEY in operator.observed.deployments:
                gone = operator.observed.deployments[KEY]
                for key in operator.observed.saw_deployment("DELETED", gone):
                    operator.queue.wake(key)
            return await super().get(kind, namespace, name)

    server = Quick()
    operator = Operator(server, Engines(server))
    async with running(operator):
        await asyncio.sleep(10)

    assert operator.failures == []
    assert operator.records.get(KEY) is None


@on_virtual_time
async def test_a_secret_that_is_rotated_is_read_again() -> None:
    server = Server()
    engine = {"type": "vllm", "endpoints": ["fast:1"], "apiKeySecretRef": {"name": "s", "key": "k"}}
    operator = Operator(server, Engines(server), engine=engine)
    async with running(operator):
        for key in ("first", "second", "third"):
            data = {"k": base64.b64encode(key.encode()).decode()}
            server.objects["Secret", "s"] = {"metadata": {"name": "s"}, "data": data}
            await asyncio.sleep(90)
            record = operator.records.get(KEY)
            assert record is not None
            assert record.credentials.api_key == key


@on_virtual_time
async def test_a_change_that_no_status_shows_is_told() -> None:
    """As of a replica beyond the hundred that are listed."""
    server = Server()
    operator = Operator(server, Engines(server))
    async with running(operator):
        await asyncio.sleep(400)
        statuses = len(server.statuses)
        record = operator.records.get(KEY)
        assert record is not None
        record.changes.append(Change("far:1", 1.0, 0.5, "runs at half the speed"))
        for _ in range(2):
            operator.queue.wake(KEY)
            await asyncio.sleep(5)

    assert len(server.statuses) == statuses
    assert server.events.count("Rebalanced") == 1
