"""What the rebalancer is told of a replica, and what becomes of its decisions: the books of all routers, Events once."""

from typing import Any

from halffull.api.router_config import Balance
from halffull.api.scheduling import Scheduling
from halffull.controller.happenings import happenings
from halffull.controller.readings import balance_settings, carried, reading
from halffull.core.balance import Act, Change
from halffull.core.books import PREFILL_RATE
from halffull.core.values import Signals

SIGNALS = Signals(running=3)


def router(**page: Any) -> dict[str, Any]:
    return {"replicas": [{"name": "other", "inFlight": 9}, {"name": "a", "state": "Ready", **page}]}


def test_books_of_all_routers_are_added() -> None:
    pages = [
        router(inFlight=2, seenTokens=100, prefillTokensPerSecond=8000.0, prefillTokens=9000),
        router(inFlight=3, seenTokens=50, prefillTokens=7000),
    ]

    told = reading(SIGNALS, "a", pages)

    assert (told.signals, told.in_flight, told.seen_tokens, told.prefill_rate) == (SIGNALS, 5, 150, 8000.0)
    assert told.prefill_s == 2
    assert not told.down


def test_books_are_not_known_where_a_router_does_not_answer_or_none_has_the_replica() -> None:
    for pages in ([router(inFlight=2), None], [], [{"replicas": []}]):
        assert reading(SIGNALS, "a", pages).in_flight is None
        assert reading(SIGNALS, "a", pages).seen_tokens is None


def test_what_no_router_has_learned_is_no_speed() -> None:
    assert reading(None, "a", [router(prefillTokensPerSecond=PREFILL_RATE)]).prefill_rate is None


def test_a_replica_is_down_when_all_routers_say_so() -> None:
    assert reading(None, "a", [router(state="Down"), router(state="Down")]).down
    assert not reading(None, "a", [router(state="Down"), router()]).down


def test_liars_are_suspended_where_stale_metrics_exclude() -> None:
    assert balance_settings(Scheduling.model_validate({"signals": {"whenStale": "exclude"}})).suspend_liars
    assert not balance_settings(Scheduling()).suspend_liars
    assert balance_settings(Scheduling.model_validate({"rebalance": {"intervalSeconds": 60}})).stale_after_s == 180


def test_what_is_published_is_carried_over_a_restart() -> None:
    published = Balance.model_validate(
        {"replicas": {"a": {"weight": 0.5}, "b": {"suspended": True, "reason": "stuck"}, "c": {"drain": True}}}
    )

    pages = carried(published).pages

    assert (pages["a"].weight, pages["a"].suspended) == (0.5, "")
    assert (pages["b"].weight, pages["b"].suspended) == (1.0, "stuck")
    assert not pages["c"].suspended


def test_each_change_is_an_event_of_its_own_kind() -> None:
    changes = [
        Change("a", 1.0, 0.5, "runs at 50% of the fastest replica's speed: weight 1 -> 0.5"),
        Change("b", 1.0, 1.0, "holds 3 requests and has made no token for 30 s", Act.SUSPENDED),
        Change("b", 1.0, 1.0, "is tried again with one request", Act.RESUMED),
    ]

    told = happenings({}, {}, changes)

    assert [(event.reason, event.type) for event in told] == [
        ("Rebalanced", "Normal"),
        ("ReplicaSuspended", "Warning"),
        ("ReplicaResumed", "Normal"),
    ]
    assert told[1].note.startswith("b holds 3 requests")
