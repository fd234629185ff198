"""The external-metrics API: what a label selector may say, and what is told of whom."""

import datetime as dt

import pytest

from halffull.controller.external_metrics import model_deployment, values

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("selector", "named"),
    [
        ("", None),
        ("model_deployment=chat", "chat"),
        ("model_deployment==chat.v2", "chat.v2"),
        ("model_deployment in (chat)", "chat"),
    ],
)
def test_a_selector_names_one_or_all(selector: str, named: str | None) -> None:
    assert model_deployment(selector) == named


@pytest.mark.parametrize(
    "selector",
    ["model_deployment", "model_deployment=a,team=b", "team=b", "model_deployment!=a", "model_deployment=a/../b"],
)
def test_other_selectors_are_refused(selector: str) -> None:
    with pytest.raises(ValueError, match="model_deployment=NAME or empty"):
        model_deployment(selector)


def test_a_value_for_each_whose_demand_is_known() -> None:
    known = {"metadata": {"name": "a"}, "status": {"desiredReplicas": 0}}
    unknown = [{"metadata": {"name": "b"}, "status": {}}, {"metadata": {"name": "c"}}]

    (item,) = values([known, *unknown], NOON)["items"]

    assert item["metricLabels"] == {"model_deployment": "a"}
    assert (item["value"], item["timestamp"]) == ("0", "2026-01-02T12:00:00Z")
