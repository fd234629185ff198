"""From a ModelDeployment to the RouterConfig of its routers: one pure step for the operator and for `halffull up`.

Nothing here knows Kubernetes; `reconcile` wraps the result in a ConfigMap, `halffull up` writes it to a file.
"""

from collections.abc import Collection, Mapping, Sequence

from halffull.api.model_deployment import EngineLimits, ModelDeployment, SchedulingPolicy
from halffull.api.router_config import Balance, EngineTarget, ReplicaBalance, RouterConfig, RouterSettings, Source
from halffull.api.scheduling import Scheduling
from halffull.controller.names import engine_service
from halffull.core.balance import Decision
from halffull.engines.catalog import ENGINES

CA_FOLDER = "/etc/halffull/engine-ca"
API_KEY_FOLDER = "/etc/halffull/engine-api-key"
"""where the Secrets of `engine.caSecretRef` and `engine.apiKeySecretRef` are mounted in a router"""


def router_config(
    deployment: ModelDeployment,
    policy: SchedulingPolicy | None = None,
    previous: RouterConfig | None = None,
    balance: Balance | None = None,
    *,
    endpoints: Sequence[str] | None = None,
    engine_args: Sequence[str] = (),
) -> RouterConfig:
    """Return the sealed document.

    `policy` is what `schedulingPolicyRef` names, None where there is none (the scheduling of `previous` stays then);
    `balance` what the rebalancer says, None to carry over that of `previous`; `endpoints` replaces the engine Service
    by fixed addresses; `engine_args` are the arguments of adopted pods, which may tell the engine's limits.
    """
    scheduling, source = _scheduling(deployment, policy, previous)
    spec = deployment.spec
    return RouterConfig(
        model_deployment=_source(deployment),
        scheduling_policy=source,
        model=spec.model,
        model_aliases=spec.model_aliases,
        engine=_engine(deployment, endpoints, engine_args),
        scheduling=scheduling,
        resume=spec.resume,
        tokenizer=spec.tokenizer,
        router=RouterSettings(
            limits=spec.router.limits,
            drain=spec.router.drain,
            retries=spec.router.retries,
            access_log=spec.router.access_log,
            record=spec.router.record,
            request_timeout_seconds=spec.router.request_timeout_seconds,
        ),
        balance=balance or (previous.balance if previous else Balance()),
    ).seal()


def balanced(
    previous: Balance | None,
    replicas: Collection[str],
    decision: Decision | None = None,
    reasons: Mapping[str, str] | None = None,
    *,
    drained: Collection[str] = (),
    renew: bool = False,
) -> Balance:
    """Return the balance for the replicas that exist: as decided, or without a decision as `previous` says; and `drained` ones.

    Neutral entries are left out. With `renew`, and while something is not neutral, the document changes, so that routers
    take it anew before it lapses.
    """
    before = previous or Balance()
    entries = {}
    for name in sorted(replicas):
        entry = before.replicas.get(name, ReplicaBalance()).model_copy(update={"drain": name in drained})
        if decision is not None:
            said = {
                "weight": decision.weights.get(name, entry.weight),
                "suspended": name in decision.suspended,
                "distrusted": name in decision.distrusted,
            }
            if any(getattr(entry, field) != value for field, value in said.items()):
                entry = entry.model_copy(update={**said, "reason": (reasons or {}).get(name, entry.reason)})
        if not neutral(entry):
            entries[name] = entry
    renewed = before.renewed + 1 if renew and entries else before.renewed
    return before.model_copy(update={"renewed": renewed, "replicas": entries})


def neutral(entry: ReplicaBalance) -> bool:
    """Whether an entry says what its absence says."""
    return entry.weight == 1.0 and not (entry.suspended or entry.drain or entry.distrusted)


def _scheduling(
    deployment: ModelDeployment, policy: SchedulingPolicy | None, previous: RouterConfig | None
) -> tuple[Scheduling, Source | None]:
    spec = deployment.spec
    if spec.scheduling_policy_ref is None:
        return spec.scheduling or Scheduling(), None
    if policy is not None:
        return policy.spec, _source(policy)
    return (previous.scheduling, previous.scheduling_policy) if previous else (Scheduling(), None)


def _source(resource: ModelDeployment | SchedulingPolicy) -> Source:
    metadata = resource.metadata
    return Source(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid, generation=metadata.generation)


def _engine(deployment: ModelDeployment, endpoints: Sequence[str] | None, engine_args: Sequence[str]) -> EngineTarget:
    engine = deployment.spec.engine
    fixed = tuple(endpoints) if endpoints is not None else engine.endpoints
    ca, api_key = engine.ca_secret_ref, engine.api_key_secret_ref
    return EngineTarget(
        type=engine.type,
        scheme=engine.scheme,
        port=engine.port,
        service=engine_service(deployment.metadata.name) if fixed is None else None,
        endpoints=fixed,
        limits=limits(deployment, engine_args),
        ca_file=f"{CA_FOLDER}/{ca.key}" if ca else None,
        api_key_file=f"{API_KEY_FOLDER}/{api_key.key}" if api_key else None,
        priority=engine.priority,
        kv_events=engine.kv_events,
    )


def limits(deployment: ModelDeployment, engine_args: Sequence[str] = ()) -> EngineLimits:
    """Return what one replica can do: `engine.limits`, else as its arguments say; the rest the router finds by itself."""
    engine = deployment.spec.engine
    args = (*(engine.template.command or ()), *engine.template.args) if engine.template else tuple(engine_args)
    sequences, batched = ENGINES[engine.type].limits(args)
    given = engine.limits
    return given.model_copy(
        update={
            "max_sequences": given.max_sequences or sequences,
            "max_batched_tokens": given.max_batched_tokens or batched,
        }
    )
