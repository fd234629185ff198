"""Strategic merge of pod templates: what kubectl's strategic merge patch does, case by case."""

import copy

import pytest

from halffull.controller.merge import strategic_merge

POD = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [
            {
                "name": "engine",
                "image": "i:1",
                "args": ["--x"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"containerPort": 8000, "name": "http"}],
            }
        ],
        "tolerations": [{"key": "gpu"}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
}


def engine(pod):
    return pod["spec"]["containers"][0]


def test_maps_merge_and_null_deletes() -> None:
    merged = strategic_merge(POD, {"metadata": {"labels": {"b": "2"}}, "spec": {"volumes": None, "hostNetwork": True}})

    assert merged["metadata"]["labels"] == {"a": "1", "b": "2"}
    assert merged["spec"]["hostNetwork"] is True
    assert "volumes" not in merged["spec"]


def test_containers_and_env_merge_by_name() -> None:
    patch = {"spec": {"containers": [{"name": "engine", "env": [{"name": "B", "value": "3"}, {"name": "C"}]}]}}

    merged = strategic_merge(POD, patch)

    assert engine(merged)["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C"}]
    assert engine(merged)["image"] == "i:1"


def test_a_new_container_comes_last() -> None:
    merged = strategic_merge(POD, {"spec": {"containers": [{"name": "logs", "image": "l"}]}})

    assert [c["name"] for c in merged["spec"]["containers"]] == ["engine", "logs"]


def test_ports_merge_by_container_port() -> None:
    ports = [{"containerPort": 8000, "hostPort": 80}, {"containerPort": 9000}]

    merged = strategic_merge(POD, {"spec": {"containers": [{"name": "engine", "ports": ports}]}})

    assert engine(merged)["ports"] == [
        {"containerPort": 8000, "name": "http", "hostPort": 80},
        {"containerPort": 9000},
    ]


def test_other_lists_are_replaced() -> None:
    patch = {"spec": {"tolerations": [{"key": "other"}], "containers": [{"name": "engine", "args": ["--y"]}]}}

    merged = strategic_merge(POD, patch)

    assert merged["spec"]["tolerations"] == [{"key": "other"}]
    assert engine(merged)["args"] == ["--y"]


def test_directives_delete_and_replace() -> None:
    deleted = strategic_merge(POD, {"spec": {"volumes": [{"name": "v", "$patch": "delete"}]}})
    replaced = strategic_merge(
        POD, {"spec": {"containers": [{"name": "engine", "env": [{"$patch": "replace"}, {"name": "Z"}]}]}}
    )
    map_replaced = strategic_merge(POD, {"metadata": {"$patch": "replace", "labels": {"only": "x"}}})

    assert deleted["spec"]["volumes"] == []
    assert engine(replaced)["env"] == [{"name": "Z"}]
    assert map_replaced["metadata"] == {"labels": {"only": "x"}}


def test_an_element_without_its_key_is_refused() -> None:
    with pytest.raises(ValueError, match="each element of containers needs 'name'"):
        strategic_merge(POD, {"spec": {"containers": [{"image": "x"}]}})


def test_neither_side_is_changed() -> None:
    before, patch = copy.deepcopy(POD), {"spec": {"containers": [{"name": "engine", "env": [{"name": "C"}]}]}}
    kept = copy.deepcopy(patch)

    strategic_merge(POD, patch)["spec"]["containers"][0]["env"].clear()

    assert before == POD
    assert kept == patch
