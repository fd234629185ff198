"""What the golden files cannot show: when a status is written, what an Event tells, and how states are judged."""

import datetime as dt
from typing import Any

import pytest

from halffull.api.router_config import Balance
from halffull.controller.conditions import Conditions
from halffull.controller.endpoints import Endpoint
from halffull.controller.events import NOTE_LIMIT, Happening, event
from halffull.controller.facts import Facts, RouterAnswer
from halffull.controller.happenings import happenings
from halffull.controller.policy_status import policy_status
from halffull.controller.replicas import counts, listed, percent, replicas, two_digits
from halffull.controller.status import refused, write_after
from halffull.core.balance import Change

NOW = "2026-01-01T00:00:00Z"
THEN = "2025-01-01T00:00:00Z"


def condition(kind: str, status: str, reason: str = "R", message: str = "m") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": THEN}


STATUS = {
    "conditions": [condition("Ready", "True")],
    "summary": {"ready": "1/1", "waiting": "3", "kv": "10%"},
    "replicas": [{"name": "a", "state": "Ready", "running": 3, "kvUsagePercent": 10, "weight": 1.0}],
}
FIGURES = {
    **STATUS,
    "summary": {"ready": "1/1", "waiting": "4", "kv": "20%"},
    "replicas": [{"name": "a", "state": "Ready", "running": 4, "kvUsagePercent": 20, "weight": 1.0}],
}
STATE = {**STATUS, "replicas": [{"name": "a", "state": "Down", "running": 3, "kvUsagePercent": 10, "weight": 1.0}]}


@pytest.mark.parametrize(
    ("written", "new", "since", "expected"),
    [
        (None, STATUS, 0.0, 0.0),
        (STATUS, STATUS, 1e9, None),
        (STATUS, FIGURES, 5.0, 25.0),
        (STATUS, FIGURES, 31.0, 0.0),
        (STATUS, STATE, 0.2, 0.8),
        (STATUS, STATE, 2.0, 0.0),
    ],
)
def test_states_are_written_at_once_and_figures_now_and_then(written, new, since, expected) -> None:
    assert write_after(written, new, since) == expected


def test_a_transition_time_moves_with_the_status_only() -> None:
    make = Conditions({"conditions": [condition("Ready", "True"), condition("EnginesReady", "False")]}, 2, NOW)

    assert make.true("Ready", "Other", "x").last_transition_time == THEN
    assert make.true("EnginesReady", "R", "x").last_transition_time == NOW
    assert make.false("New", "R", "x").last_transition_time == NOW


def test_a_refused_spec_keeps_what_was_known() -> None:
    before = {"observedGeneration": 1, "conditions": [condition("Ready", "True"), condition("RouterReady", "True")]}

    made = refused({"metadata": {"generation": 2}}, before, "spec.model: required", NOW)

    assert made["observedGeneration"] == 2
    assert [(c["type"], c["status"], c["reason"]) for c in made["conditions"]] == [
        ("Ready", "False", "SpecRefused"),
        ("RouterReady", "True", "R"),
    ]


def rows(*states: str) -> dict[str, Any]:
    return {"replicas": [{"name": name, "state": state} for name, state in zip("abc", states, strict=False)]}


def reasons(before: dict[str, Any], after: dict[str, Any], *changes: Change) -> list[str]:
    return [happening.reason for happening in happenings(before, after, changes)]


def test_what_changed_is_told_once() -> None:
    applied = {"conditions": [condition("PolicyApplied", "True")]}
    rolling = {"conditions": [condition("PolicyApplied", "False", "RollingOut")]}
    lost = {"conditions": [condition("PolicyApplied", "False", "PolicyNotFound")]}

    assert reasons(rolling, applied) == ["PolicyApplied"]
    assert reasons(applied, applied) == []
    assert reasons(applied, rolling) == []
    assert reasons(applied, lost) == ["PolicyNotFound"]
    assert reasons(lost, lost) == []
    # routers may be done before a status tells that they are at it
    assert reasons({**applied, "policy": "sal"}, {**applied, "policy": "random"}) == ["PolicyApplied"]


def test_a_note_is_cut_to_what_the_api_server_takes_in_bytes() -> None:
    about = {"kind": "ModelDeployment", "metadata": {"name": "d", "namespace": "n", "uid": "u"}}
    note = event(about, Happening("R", "A", "ä" * 1000), "operator", dt.datetime.now(dt.UTC))["note"]

    assert note == "ä" * (NOTE_LIMIT // 2)


def test_silent_replicas_and_their_return_are_told() -> None:
    assert reasons(rows("Ready", "Ready"), rows("Suspect", "Ready")) == ["ReplicaSuspected"]
    # a pod that was down may have just started, which Kubernetes tells by itself
    assert reasons(rows("Suspect", "Down"), rows("Ready", "Ready")) == ["ReplicaBack"]
    assert reasons(rows(), rows("Ready")) == []  # a new pod is no event of ours
    assert reasons(rows("Ready"), rows("Draining")) == []


def test_a_weight_that_changed_is_told() -> None:
    change = Change("a", 1.0, 0.5, "runs at 50% of the fastest replica's speed: weight 1 -> 0.5")

    (happening,) = happenings({}, {}, [change])

    assert happening.reason == "Rebalanced"
    assert happening.note == "a runs at 50% of the fastest replica's speed: weight 1 -> 0.5"


def pod(name: str, *, ready: bool | None = True, terminating: bool = False) -> Endpoint:
    return Endpoint(name, "10.0.0.1", 8000, ready, terminating)


def says(**states: str) -> RouterAnswer:
    return RouterAnswer({"replicas": [{"name": name, "state": state} for name, state in states.items()]})


@pytest.mark.parametrize(
    ("endpoint", "answers", "expected"),
    [
        (pod("a"), {}, "Ready"),
        (pod("a", ready=False), {"r": says(a="Ready")}, "Down"),
        (pod("a", terminating=True), {"r": says(a="Ready")}, "Draining"),
        (pod("a"), {"r": says(a="Ready"), "s": says(a="Suspect")}, "Suspect"),
        (pod("a"), {"r": says(a="Ready"), "s": says(a="Down")}, "Suspect"),
        (pod("a"), {"r": says(a="Down"), "s": says(a="Down")}, "Down"),
        (pod("a"), {"r": RouterAnswer(error="timeout")}, "Ready"),
        (pod("a", ready=None), {}, "Down"),
        (pod("a", ready=None), {"r": says(a="Ready")}, "Ready"),
    ],
)
def test_the_state_of_a_replica(endpoint, answers, expected) -> None:
    facts = Facts(engines=(endpoint,), answers=answers)

    assert [row.state for row in replicas(facts, Balance())] == [expected]


def test_the_worst_hundred_are_listed_and_all_are_counted() -> None:
    pods = [pod(f"p{number:03}", ready=number % 10 != 0) for number in range(250)]
    all_rows = replicas(Facts(engines=tuple(pods)), Balance())

    shown = listed(all_rows)

    assert len(shown) == 100
    assert sum(row.state == "Down" for row in shown) == 25
    assert counts(all_rows, 260).model_dump() == {"total": 260, "ready": 225, "draining": 0, "suspect": 0, "down": 35}


def test_figures_are_rounded() -> None:
    assert [two_digits(value) for value in (0, 7, 99, 123, 5678, 0.0123)] == [0, 7, 99, 120, 5700, 0.012]
    assert [percent(value) for value in (0.0, 0.024, 0.026, 0.43, 1.0, 1.7, None)] == [0, 0, 5, 45, 100, 100, None]


def test_a_policy_is_applied_when_every_user_has_it() -> None:
    waiting = policy_status(3, {"a": "", "b": "RollingOut"}, {}, NOW)
    done = policy_status(3, {"a": "", "b": ""}, {}, NOW)

    assert [(c.status, c.reason, c.message) for c in waiting.conditions] == [("False", "RollingOut", "b: RollingOut")]
    assert [(c.status, c.reason) for c in done.conditions] == [("True", "Applied")]
    assert [(c.status, c.reason) for c in policy_status(1, {}, {}, NOW).conditions] == [("True", "NotUsed")]
    assert done.users == 2
