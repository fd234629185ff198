"""When the status of a SchedulingPolicy is written."""

from typing import Any

from halffull.controller.names import Key
from halffull.controller.observed import Observed
from halffull.controller.policies import PolicyReconciler
from halffull.controller.records import Records
from virtual_time import on_virtual_time

KEY = Key("n", "p")


class Server:
    """In place of the API server: keeps what is written."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    async def apply_status(self, document: dict[str, Any]) -> dict[str, Any]:
        self.written.append(document)
        return document


def policy(uid: str, version: str) -> dict[str, Any]:
    metadata = {"namespace": "n", "name": "p", "uid": uid, "generation": 1, "resourceVersion": version}
    return {"kind": "SchedulingPolicy", "metadata": metadata, "spec": {"policy": "sal"}}


@on_virtual_time
async def test_a_policy_that_takes_the_name_of_one_that_was_deleted_gets_a_status_of_its_own() -> None:
    server, observed, later = Server(), Observed(), []
    policies = PolicyReconciler(server, observed, Records(), lambda *when: later.append(when))  # type: ignore[arg-type]
    observed.saw_policy(None, policy("first", "1"))
    await policies.reconcile(KEY)
    await policies.reconcile(KEY)
    assert [document["metadata"]["uid"] for document in server.written] == ["first"]

    observed.saw_policy("DELETED", policy("first", "2"))
    observed.saw_policy(None, policy("second", "3"))
    await policies.reconcile(KEY)

    assert [document["metadata"]["uid"] for document in server.written] == ["first", "second"]
    assert not later
