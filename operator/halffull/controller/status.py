"""The status of a ModelDeployment: pure, from its spec, its published configuration and what is known of its pods.

Called by `reconcile`, which writes it when `write_after` says so.
"""

from collections.abc import Mapping
from typing import Any

from halffull.api.model_deployment import ModelDeployment
from halffull.api.router_config import RouterConfig
from halffull.api.status import (
    MAX_REPLICAS,
    Condition,
    ModelDeploymentStatus,
    ReplicaCounts,
    ReplicaStatus,
    RouterStatus,
    Summary,
)
from halffull.controller import names
from halffull.controller.conditions import Conditions
from halffull.controller.endpoints import Endpoint
from halffull.controller.facts import Facts, Notes, RouterAnswer
from halffull.controller.replicas import counts, listed, percent, replicas, two_digits
from halffull.policies.catalog import POLICIES

SHORTEST_S, FIGURES_S = 1.0, 30.0
"""time between two writes of a status; between two that only refresh figures (seconds)"""
_FIGURES = {"running", "waiting", "kvUsagePercent", "prefillTokensPerSecond", "pressure", "speed", "kv"}


def status(
    owner: ModelDeployment, config: RouterConfig, facts: Facts, notes: Notes, *, previous: Mapping[str, Any], now: str
) -> ModelDeploymentStatus:
    """Return the status; `previous` is the one written last, `now` RFC 3339."""
    rows = replicas(facts, config.balance)
    pods = counts(rows, facts.engine_pods)
    routers = tuple(_router(endpoint, _answer(facts, endpoint.name)) for endpoint in facts.routers)
    make = Conditions(previous, owner.metadata.generation, now)
    wanted = _wanted_replicas(owner, pods)
    wanted_routers = wanted if owner.spec.router.placement == "Sidecar" else owner.spec.router.replicas
    conditions = [
        _ready(make, pods, routers, notes),
        _engines_ready(make, pods, wanted),
        _router_ready(make, routers, wanted_routers, notes),
        _policy_applied(make, config, facts, notes),
    ]
    if notes.sharers:
        others = ", ".join(notes.sharers)
        message = f"the same pods are adopted by {others}: each routes without knowing of the other's requests"
        conditions.append(make.true("EnginesShared", "SelectorsOverlap", message))
    if notes.sidecar:
        conditions.append(make.true("SidecarNotPossible", "NotInjected", notes.sidecar))
    if notes.secrets:
        conditions.append(make.true("SecretsMissing", "SecretNotFound", "; ".join(notes.secrets)))
    return ModelDeploymentStatus(
        observed_generation=owner.metadata.generation,
        conditions=tuple(conditions),
        endpoint=_endpoint(owner),
        policy=config.scheduling.policy,
        selector=_selector(owner),
        replica_counts=pods,
        desired_replicas=facts.desired,
        summary=Summary(
            ready=f"{pods.ready}/{wanted}",
            waiting=_waiting(rows, facts),
            kv=_kv(facts),
            routers=f"{sum(router.ready for router in routers)}/{wanted_routers}",
        ),
        routers=_listed(routers, config.hash),
        replicas=listed(rows),
    )


def refused(owner: Mapping[str, Any], previous: Mapping[str, Any], message: str, now: str) -> dict[str, Any]:
    """Return the status document of a resource that cannot be understood: as before, but not Ready."""
    make = Conditions(previous, owner["metadata"]["generation"], now)
    others = [c for c in previous.get("conditions") or () if c["type"] != "Ready"]
    ready = make.false("Ready", "SpecRefused", message).dump()
    return {
        **previous,
        "observedGeneration": owner["metadata"]["generation"],
        "conditions": [ready, *others],
    }


def write_after(written: Mapping[str, Any] | None, new: Mapping[str, Any], since_s: float) -> float | None:
    """Return in how many seconds to write `new` where `written` was written `since_s` ago; None: nothing to write."""
    if written is None:
        return 0.0
    if written == new:
        return None
    wait = FIGURES_S if _essence(written) == _essence(new) else SHORTEST_S
    return max(0.0, wait - since_s)


def _essence(document: Any) -> Any:
    """Return a status without its figures."""
    if isinstance(document, Mapping):
        return {key: _essence(value) for key, value in document.items() if key not in _FIGURES}
    return [_essence(value) for value in document] if isinstance(document, list) else document


def _endpoint(owner: ModelDeployment) -> str:
    router, metadata = owner.spec.router, owner.metadata
    scheme, usual = ("https", 443) if router.tls else ("http", 80)
    port = "" if router.service.port == usual else f":{router.service.port}"
    return f"{scheme}://{metadata.name}.{metadata.namespace}.svc{port}"


def _selector(owner: ModelDeployment) -> str | None:
    engine = owner.spec.engine
    if engine.endpoints is not None:
        return None
    labels = engine.selector.match_labels if engine.selector else names.selector(owner.metadata.name, "engine")
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _wanted_replicas(owner: ModelDeployment, pods: ReplicaCounts) -> int:
    return owner.spec.replicas if owner.spec.engine.template is not None else pods.total


def _listed(routers: tuple[RouterStatus, ...], hash_: str) -> tuple[RouterStatus, ...]:
    """Return the routers that a status lists: of very many, those that are behind first."""
    if len(routers) <= MAX_REPLICAS:
        return routers
    return tuple(sorted(routers, key=lambda router: (router.hash == hash_, router.name)))[:MAX_REPLICAS]


def _router(endpoint: Endpoint, said: RouterAnswer) -> RouterStatus:
    hash_ = said.config.get("hash")
    return RouterStatus(
        name=endpoint.name,
        ready=bool(endpoint.ready),
        policy=(said.document or {}).get("policy") if hash_ else None,
        hash=hash_,
        message=said.config.get("error") or said.error or None,
    )


def _ready(make: Conditions, pods: ReplicaCounts, routers: tuple[RouterStatus, ...], notes: Notes) -> Condition:
    if notes.taken:
        message = f"not ours, but in our place: {', '.join(notes.taken)}; rename one or the other"
        return make.false("Ready", "NameTaken", message)
    if notes.refused:
        return make.false("Ready", "ChildRefused", "; ".join(notes.refused)[:4096])
    if not any(router.ready for router in routers):
        return make.false("Ready", "NoRouterReady", "no router is ready")
    if not pods.ready:
        return make.false("Ready", "NoReplicaReady", f"none of {pods.total} replicas is ready")
    return make.true("Ready", "Serving", "requests are served")


def _engines_ready(make: Conditions, pods: ReplicaCounts, wanted: int) -> Condition:
    message = f"{pods.ready} of {wanted} replicas are ready"
    if pods.ready >= wanted > 0:
        return make.true("EnginesReady", "ReplicasReady", message)
    reason = "SomeReplicasNotReady" if pods.ready else "NoReplicaReady" if wanted else "NoReplicas"
    return make.false("EnginesReady", reason, message)


def _router_ready(make: Conditions, routers: tuple[RouterStatus, ...], wanted: int, notes: Notes) -> Condition:
    ready = sum(router.ready for router in routers)
    message = f"{ready} of {wanted} routers are ready"
    if notes.sidecar:
        return make.false("RouterReady", "SidecarNotPossible", notes.sidecar)
    if ready >= wanted > 0:
        return make.true("RouterReady", "RoutersReady", message)
    return make.false("RouterReady", "SomeRoutersNotReady" if ready else "NoRouterReady", message)


def _policy_applied(make: Conditions, config: RouterConfig, facts: Facts, notes: Notes) -> Condition:
    """Whether every ready router reports the hash of what was published."""
    kind, policy = "PolicyApplied", config.scheduling.policy
    if notes.policy:
        return make.false(kind, *notes.policy)
    ready = [endpoint.name for endpoint in facts.routers if endpoint.ready]
    if not ready:
        return make.false(kind, "NoRouterReady", f"no router is ready to schedule by {policy}")
    behind = [name for name in ready if _answer(facts, name).config.get("hash") != config.hash]
    errors = {name: _answer(facts, name).config.get("error") for name in behind}
    if behind:
        told = [f"{name}: {error}" for name, error in errors.items() if error]
        if told:
            return make.false(kind, "RefusedByRouter", "; ".join(told)[:1024])
        message = f"{len(ready) - len(behind)} of {len(ready)} routers schedule by {policy} as last specified"
        return make.false(kind, "RollingOut", message)
    message = f"all {len(ready)} ready routers schedule by {policy}"
    if _ordering_without_queue(config):
        message += f"; gate none queues nothing, so ordering {config.scheduling.ordering} has nothing to order"
        return make.true(kind, "OrderingWithoutQueue", message)
    return make.true(kind, "Applied", message)


def _answer(facts: Facts, router: str) -> RouterAnswer:
    return facts.answers.get(router) or RouterAnswer()


def _ordering_without_queue(config: RouterConfig) -> bool:
    scheduling = config.scheduling
    gate = scheduling.gate or POLICIES[scheduling.policy].gate
    return gate == "none" and scheduling.ordering is not None


def _waiting(rows: tuple[ReplicaStatus, ...], facts: Facts) -> str:
    """Return the requests that wait in engines and routers; empty where neither could be asked."""
    in_engines = [row.waiting for row in rows if row.waiting is not None]
    documents = [answer.document for answer in facts.answers.values() if answer.document is not None]
    in_routers = [(document.get("queue") or {}).get("requests", 0) for document in documents]
    return str(int(two_digits(sum(in_engines) + sum(in_routers)))) if in_engines or in_routers else ""


def _kv(facts: Facts) -> str:
    usages = [signals.kv_usage for signals in facts.signals.values() if signals.kv_usage is not None]
    return f"{percent(sum(usages) / len(usages))}%" if usages else ""
