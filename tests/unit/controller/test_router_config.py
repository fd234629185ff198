"""The step from resources to a RouterConfig: what carries over, what is resolved, when the document changes."""

from typing import Any

from halffull.api.model_deployment import ModelDeployment, SchedulingPolicy
from halffull.api.router_config import Balance, ReplicaBalance
from halffull.controller.router_config import balanced, router_config
from halffull.core.balance import Decision


def deployment(generation: int = 1, **spec: Any) -> ModelDeployment:
    defaults = {"model": "m", "engine": {"type": "vllm", "selector": {"matchLabels": {"app": "x"}}}}
    metadata = {"name": "d", "namespace": "n", "uid": "u", "generation": generation}
    return ModelDeployment.model_validate({"metadata": metadata, "spec": {**defaults, **spec}})


def policy(name: str = "random", generation: int = 1) -> SchedulingPolicy:
    metadata = {"name": "p", "namespace": "n", "uid": "pu", "generation": generation}
    return SchedulingPolicy.model_validate({"metadata": metadata, "spec": {"policy": name}})


REF = {"schedulingPolicyRef": {"name": "p"}}


def test_neither_scheduling_nor_reference_is_sal() -> None:
    assert router_config(deployment()).scheduling.policy == "sal"


def test_a_reference_brings_the_policy_and_its_generation() -> None:
    config = router_config(deployment(**REF), policy("random", 4))

    assert config.scheduling.policy == "random"
    assert config.scheduling_policy is not None
    assert config.scheduling_policy.generation == 4


def test_an_absent_policy_keeps_what_was_applied_but_not_the_rest() -> None:
    before = router_config(deployment(**REF), policy("random"))

    after = router_config(deployment(2, model="other", **REF), None, before)

    assert (after.scheduling, after.scheduling_policy) == (before.scheduling, before.scheduling_policy)
    assert after.model == "other"
    assert router_config(deployment(**REF)).scheduling.policy == "sal"


def test_inline_scheduling_ends_the_reference() -> None:
    before = router_config(deployment(**REF), policy("random"))

    after = router_config(deployment(2, scheduling={"policy": "round-robin"}), None, before)

    assert after.scheduling.policy == "round-robin"
    assert after.scheduling_policy is None


def test_the_hash_follows_every_edit_but_no_weight() -> None:
    plain = router_config(deployment())
    weighed = router_config(deployment(), balance=Balance(replicas={"a": ReplicaBalance(weight=0.5)}))

    assert weighed.hash == plain.hash
    assert router_config(deployment(2)).hash != plain.hash
    assert router_config(deployment(resume="never")).hash != plain.hash
    assert router_config(deployment(**REF), policy(generation=1)).hash != (
        router_config(deployment(**REF), policy(generation=2)).hash
    )


def decision(weights: dict[str, float], **parts: dict[str, str]) -> Decision:
    return Decision(weights, speeds={}, marks={}, changes=(), **parts)


def test_the_same_inputs_make_the_same_document() -> None:
    before = router_config(deployment(), balance=Balance(replicas={"a": ReplicaBalance(weight=0.5)}))

    assert router_config(deployment(), None, before) == before


def test_limits_come_from_the_resource_then_from_arguments() -> None:
    args = ("vllm", "serve", "m", "--max-num-seqs=48", "--max-num-batched-tokens", "4k")
    engine = {"type": "vllm", "selector": {"matchLabels": {"app": "x"}}, "limits": {"maxSequences": 9}}

    assert router_config(deployment(), engine_args=args).engine.limits.max_sequences == 48
    assert router_config(deployment(), engine_args=args).engine.limits.max_batched_tokens == 4000
    assert router_config(deployment(engine=engine), engine_args=args).engine.limits.max_sequences == 9
    assert router_config(deployment()).engine.limits.max_sequences is None


def test_fixed_endpoints_take_the_place_of_the_service() -> None:
    assert router_config(deployment()).engine.service == "d-engines"
    given = router_config(deployment(), endpoints=["h:1"]).engine
    assert (given.service, given.endpoints) == (None, ("h:1",))


def test_weights_of_replicas_that_exist_carry_over() -> None:
    before = Balance(
        renewed=3,
        replicas={"a": ReplicaBalance(weight=0.5, reason="slow"), "gone": ReplicaBalance(weight=0.2)},
    )

    after = balanced(before, ["a", "b"])

    assert after.replicas == {"a": ReplicaBalance(weight=0.5, reason="slow")}
    assert after.renewed == 3


def test_suspensions_carry_over_beside_new_weights() -> None:
    before = Balance(replicas={"a": ReplicaBalance(suspended=True, reason="lies")})

    after = balanced(before, ["a", "b"], decision({"a": 1.0, "b": 0.4}, suspended={"a": "lies"}), {"b": "slow"})

    assert after.replicas == {
        "a": ReplicaBalance(suspended=True, reason="lies"),
        "b": ReplicaBalance(weight=0.4, reason="slow"),
    }


def test_what_is_decided_is_published_with_its_reason_until_it_is_over() -> None:
    stuck = decision({"a": 1.0}, suspended={"a": "stuck"}, distrusted={"b": "lies"})

    during = balanced(None, ["a", "b"], stuck, {"a": "stuck", "b": "lies"})
    assert during.replicas == {
        "a": ReplicaBalance(suspended=True, reason="stuck"),
        "b": ReplicaBalance(distrusted=True, reason="lies"),
    }
    assert balanced(during, ["a", "b"], decision({"a": 1.0})).replicas == {}


def test_drained_replicas_are_drained_as_long_as_the_resource_says() -> None:
    during = balanced(None, ["a", "b"], drained=["a", "elsewhere"])

    assert during.replicas == {"a": ReplicaBalance(drain=True)}
    assert balanced(during, ["a", "b"], decision({"a": 1.0})).replicas == {}


def test_neutral_entries_are_left_out_and_never_renewed() -> None:
    before = Balance(replicas={"a": ReplicaBalance(weight=0.5)}, renewed=7)

    after = balanced(before, ["a"], decision({"a": 1.0}), renew=True)

    assert after == Balance(renewed=7)


def test_renewal_changes_the_document_while_something_is_not_neutral() -> None:
    before = Balance(replicas={"a": ReplicaBalance(weight=0.5)}, renewed=7)

    assert balanced(before, ["a"], renew=True).renewed == 8
    assert balanced(before, ["a"]) == before
