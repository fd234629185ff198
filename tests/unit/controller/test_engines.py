"""Engine and sidecar images outlive the operator that chose them, until the pods change for another reason."""

from typing import Any

from halffull.api.model_deployment import ModelDeployment
from halffull.controller import engines
from halffull.controller.child import TEMPLATE_HASH, Live, Settings
from halffull.controller.observed import images
from halffull.controller.sidecar import injection

OLD, NEW = Settings("halffull:old"), Settings("halffull:new")


def owner(template: dict[str, Any] | None = None, **spec: Any) -> ModelDeployment:
    engine = {"type": "simulated", "template": template or {}}
    metadata = {"name": "d", "namespace": "n", "uid": "u", "generation": 1}
    router = {"placement": "Sidecar", **spec.pop("router", {})}
    return ModelDeployment.model_validate(
        {"metadata": metadata, "spec": {"model": "m", "engine": engine, "router": router, **spec}}
    )


def made(deployment: ModelDeployment, settings: Settings, before: dict[str, Any] | None = None) -> dict[str, Any]:
    live = Live(before["metadata"]["annotations"][TEMPLATE_HASH], images(before)) if before else Live()
    assert deployment.spec.engine.template is not None
    return engines.deployment(deployment, deployment.spec.engine.template, settings, live)


def test_an_upgrade_keeps_both_images() -> None:
    before = made(owner(), OLD)

    after = made(owner(), NEW, before)

    assert images(before) == {"halffull-router": "halffull:old", "engine": "halffull:old"}
    assert after == before


def test_a_change_of_replicas_is_no_change_of_pods() -> None:
    before = made(owner(), OLD)

    assert made(owner(replicas=5), NEW, before)["spec"]["template"] == before["spec"]["template"]


def test_pods_that_change_anyway_get_the_new_images() -> None:
    before = made(owner(), OLD)

    after = made(owner({"args": ["--profile", "h100"]}), NEW, before)

    assert images(after) == {"halffull-router": "halffull:new", "engine": "halffull:new"}


def test_images_that_are_named_win() -> None:
    patch = {"spec": {"containers": [{"name": "engine", "image": "patched:1"}]}}
    named = owner({"podTemplatePatch": patch}, router={"image": "mine:1"})

    assert images(made(named, NEW, made(owner(), OLD))) == {"halffull-router": "mine:1", "engine": "patched:1"}


def test_an_adopted_workload_keeps_its_sidecar() -> None:
    engine = {"type": "vllm", "selector": {"matchLabels": {"app": "x"}}}
    adopter = owner(engine=engine)
    pod = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "server", "image": "vllm:1"}]}}
    workload = {
        "kind": "Deployment",
        "metadata": {"name": "theirs", "namespace": "n"},
        "spec": {"template": pod},
    }
    before = injection(adopter, workload, OLD)
    worn = {**before, "spec": {"template": {"spec": {**pod["spec"], **before["spec"]["template"]["spec"]}}}}

    assert injection(adopter, worn, NEW) == before
    assert images(worn)["halffull-router"] == "halffull:old"
    drained = owner(engine=engine, router={"drain": {"seconds": 1}, "workers": 2})
    assert injection(drained, worn, NEW)["spec"]["template"]["spec"]["initContainers"][0]["image"] == "halffull:new"
