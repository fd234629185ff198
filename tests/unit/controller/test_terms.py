"""Terms of leadership one after another: what ends one does not end the operator. The Lease is kept in memory here."""

import asyncio
from typing import Any

import looptime
import pytest

from halffull.api.model_deployment import ModelDeployment
from halffull.controller import app
from halffull.controller.child import Settings
from halffull.controller.kube import ApiError
from halffull.controller.leader import LEASE_S, RETRY_S, LeaseLock, lead
from halffull.controller.metrics import Metrics
from halffull.controller.names import Key
from halffull.controller.picture import Item
from halffull.controller.router_config import router_config

Document = dict[str, Any]
KEY = Key("n", "d")
ENGINE = {"type": "vllm", "endpoints": ["a:1"]}
DEPLOYMENT = {"metadata": {"name": "d", "namespace": "n", "uid": "u"}, "spec": {"model": "m", "engine": ENGINE}}


class OneLease:
    """The calls of `Kube` that a Lease needs."""

    def __init__(self) -> None:
        self.lease: Document | None = None

    async def get(self, kind: str, namespace: str, name: str) -> Document | None:
        return self.lease

    async def create(self, document: Document) -> Document:
        self.lease = document
        return document

    replace = create


def test_a_term_that_fails_is_followed_by_another(monkeypatch, caplog):
    kube, terms = OneLease(), []

    class Leader:
        def __init__(self, *_: object) -> None:
            pass

        async def run(self) -> None:
            assert kube.lease is not None
            terms.append(kube.lease["spec"]["holderIdentity"])
            if len(terms) < 3:
                raise ExceptionGroup("kopf", [ValueError("Error in the watch-stream")])

    monkeypatch.setattr(app, "Leader", Leader)
    lock = LeaseLock(kube, "halffull", "operator", "one")  # type: ignore[arg-type]
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(app.lead_until_stopped(lock, None, kube, Metrics(), asyncio.Event()))  # type: ignore[arg-type]

    assert terms == ["one"] * 3
    assert kube.lease["spec"]["holderIdentity"] == "", "given back at the end"
    assert caplog.text.count("a term as leader failed") == 2


class Lists:
    """The calls of `Kube` by which a term begins: a ModelDeployment that is there at the first list only."""

    def __init__(self) -> None:
        self.asked = 0

    async def snapshot(self, kind: str, namespace: str | None = None, *, labels: str | None = None) -> Any:
        if kind != "ModelDeployment":
            return 1, []
        self.asked += 1
        metadata = {"name": "d", "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": "1"}
        return self.asked, [{"metadata": metadata, "spec": {}}] if self.asked == 1 else []


def test_what_was_deleted_while_no_watch_ran_is_worked_on_at_the_next_list():
    worked: list[tuple[float, Item]] = []

    class Term(app.Leader):
        async def _watch(self, tasks: object) -> None:
            await asyncio.sleep(1.5 * app.RESYNC_S)

        async def _work(self, item: Item) -> None:
            worked.append((asyncio.get_running_loop().time(), item))

    options = app.Options(Settings("image"), "one", Key("halffull", "operator"))
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(Term(options, Lists(), Metrics()).run())  # type: ignore[arg-type]

    assert [at for at, item in worked if item.kind == "ModelDeployment"] == [0, app.RESYNC_S]


def test_loops_of_a_term_that_fails_end_with_it():
    class Term(app.Leader):
        async def _watch(self, tasks: object) -> None:
            self._records.of(KEY, "u").config = router_config(ModelDeployment.model_validate(DEPLOYMENT))
            self._rounds.follow(KEY)
            raise ValueError("Error in the watch-stream")

    async def term() -> Term:
        term = Term(app.Options(Settings("image"), "one", Key("halffull", "operator")), Lists(), Metrics())  # type: ignore[arg-type]
        with pytest.raises(ExceptionGroup):
            await term.run()
        return term

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        assert runner.run(term())._rounds._loops == {}


class CutOff(OneLease):
    """After the first write nothing can be written any more."""

    async def replace(self, document: Document) -> Document:
        raise ApiError(0, "connection refused")


def test_who_cannot_renew_ends_and_another_takes_over_by_a_clock_that_nobody_sets():
    kube = CutOff()

    async def lease() -> tuple[float, float]:
        now = asyncio.get_running_loop().time
        first = LeaseLock(kube, "halffull", "operator", "one")  # type: ignore[arg-type]
        assert not await lead(first, asyncio.Event().wait)  # type: ignore[arg-type]
        ended = now()
        other = OneLease()
        other.lease = kube.lease
        second = LeaseLock(other, "halffull", "operator", "two")  # type: ignore[arg-type]
        assert await lead(second, lambda: asyncio.sleep(0))
        return ended, now() - ended

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        ended, taken_over = runner.run(lease())
    assert RETRY_S < ended < LEASE_S
    assert LEASE_S <= taken_over <= LEASE_S + RETRY_S
