"""How engine processes are started: the template's arguments, what every engine needs, ports and GPUs."""

import sys

import pytest

from halffull.api.model_deployment import load_documents
from halffull.local.engines import PORTS, Recipe, Replica, free_port, recipe

TEXT = """
apiVersion: halffull.dev/v1alpha1
kind: ModelDeployment
metadata: {name: a}
spec:
  model: m
  replicas: 2
  engine: ENGINE
"""


def deployment(engine):
    text = TEXT if "template" in engine else TEXT.replace("replicas: 2", "replicas: 1")
    return load_documents(text.replace("ENGINE", engine))[0]


def test_a_simulated_engine_runs_with_this_python():
    replica = Replica(
        0, recipe(deployment("{type: simulated, template: {args: [--speedup, '4']}}")), 20000, session=None
    )

    assert replica.command() == [
        *(sys.executable, "-m", "halffull", "engine", "--host", "127.0.0.1", "--speedup", "4"),
        *("--port", str(replica.port), "--model", "m"),
    ]


def test_a_real_engine_gets_its_own_gpus_and_the_templates_variables():
    engine = (
        "{type: lmdeploy, template: {image: i, command: [lmdeploy], args: [serve, api_server, path], gpus: 2, "
        "env: [{name: A, value: b}]}}"
    )
    replica = Replica(3, recipe(deployment(engine)), 20000, session=None)

    assert replica.command()[:4] == ["lmdeploy", "serve", "api_server", "path"]
    assert ["--server-port", str(replica.port)] == replica.command()[4:6]
    assert replica.environment() == {"A": "b", "CUDA_VISIBLE_DEVICES": "6,7"}


def test_the_template_may_choose_the_gpus_itself():
    made = Recipe("vllm", "m", ("x",), environment=(("CUDA_VISIBLE_DEVICES", "5"),), gpus=1)

    assert Replica(1, made, 20000, session=None).environment() == {"CUDA_VISIBLE_DEVICES": "5"}


def test_fixed_endpoints_have_no_recipe():
    assert recipe(deployment("{type: vllm, endpoints: ['a:1']}")) is None


def test_replicas_alone_are_no_other_recipe():
    engine = "{type: simulated, template: {}}"

    assert recipe(deployment(engine)) == recipe(deployment(engine))
    assert recipe(deployment(engine)) != recipe(deployment("{type: simulated, template: {args: [--slowdown, '2']}}"))


@pytest.mark.parametrize("_", range(3))
def test_ports_are_free_ones_of_the_range(_):
    assert free_port(()) in PORTS


def test_two_engines_that_start_at_once_never_get_one_port():
    free = free_port(())
    others = set(PORTS) - {free}

    assert free_port(others) == free
    with pytest.raises(OSError, match="no free port"):
        free_port(PORTS)
