"""The document that says which replica runs a request and which request goes next.

It is `spec.scheduling` of a ModelDeployment and `spec` of a SchedulingPolicy; the router gets it in its RouterConfig. What
there is to choose, and the parameters of each choice, come from the catalogs: a new policy appears here by itself.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, with_config

from halffull.api.base import CONFIG, Document, Rule
from halffull.api.values import AsBlock, Bytes, OneOf, Seconds, SecondsOrZero
from halffull.core.entry import Entry
from halffull.core.gate import GATES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES

PolicyName = Annotated[str, OneOf({name: entry.summary for name, entry in POLICIES.items()})]
OrderingName = Annotated[str, OneOf({name: entry.summary for name, entry in ORDERINGS.items()})]
GateName = Annotated[str, OneOf({name: entry.summary for name, entry in GATES.items()})]


def parameter_field(name: str) -> str:
    """Name of the attribute of `Parameters` that holds the block of a policy, ordering or gate."""
    return name.replace("-", "_")


def _parameters_model(catalogs: dict[str, dict[str, Entry[Any]]]) -> type[Document]:
    fields: dict[str, Any] = {}
    for kind, catalog in catalogs.items():
        for entry in catalog.values():
            if entry.parameters is None:
                continue
            field = parameter_field(entry.name)
            if field in fields:
                raise ValueError(f"{kind} {entry.name}: another catalog has parameters under the same name")
            block = with_config(CONFIG)(entry.parameters)
            described = f"Parameters of {kind} {entry.name} ({entry.summary})."
            fields[field] = (Annotated[block, AsBlock()] | None, Field(None, description=described))
    return create_model("Parameters", __base__=Document, __doc__=_PARAMETERS_DOC, **fields)


_PARAMETERS_DOC = """One block per policy, ordering and gate that has parameters; an attribute is None where its block is absent.

Blocks of choices that are not in use are checked and may stay, so that editing `policy` alone always works.
"""

Parameters = _parameters_model({"policy": dict(POLICIES), "ordering": dict(ORDERINGS), "gate": dict(GATES)})
"""Its attributes hold the frozen dataclasses of the catalogs; `parameters_of` reads them by name."""


class QueueLimits(Document):
    """Bounds of the router's queue."""

    max_requests: Annotated[int, Field(ge=0, le=1_000_000)] = 1024
    """Requests that may wait in one router; a further one gets 429 with Retry-After. 0: none waits."""
    max_bytes: Bytes = 256 << 20
    """Bytes of request bodies that may wait in one router; beyond it 429."""
    timeout_seconds: Seconds = 30.0
    """Seconds that a request waits for a replica before it gets 504."""
    no_replica_seconds: SecondsOrZero = 10.0
    """Seconds that a request waits while no replica is ready at all before it gets 503."""
    fairness: Literal["callers", "none"] = "callers"
    """Who takes turns in the queue: callers (by header x-halffull-caller, else the API key, else the field user), or none: all requests are one line."""


class Slo(Document):
    """What users are promised; orderings that know goals use it."""

    ttft_seconds: Seconds | None = None
    """Seconds to the first token that count as good."""


class SignalsSettings(Document):
    """How the router reads the metrics of engines."""

    rules = (
        Rule(
            "staleAfterSeconds must not be less than intervalSeconds: every value would be stale",
            "self.staleAfterSeconds >= self.intervalSeconds",
            lambda signals: signals.stale_after_seconds >= signals.interval_seconds,
            "staleAfterSeconds",
        ),
    )

    interval_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 1.0
    """Seconds between two scrapes of an engine; the routers of a ModelDeployment share them."""
    stale_after_seconds: Seconds = 5.0
    """Age in seconds from which a scraped value is stale."""
    when_stale: Literal["books", "lastKnown", "exclude"] = "books"
    """What a policy that reads metrics does once they are stale: go by the router's own books, go on with the last known values, or exclude the replica."""


class Rebalance(Document):
    """How the operator evens out slow differences between replicas."""

    interval_seconds: Annotated[float, Field(ge=1, le=3600)] = 5.0
    """Seconds between two looks of the operator at the metrics of each engine pod."""


class Scheduling(Document):
    """Which replica runs a request, and which request goes next."""

    policy: PolicyName = "sal"
    """Picks the replica of a request. Edit it at any time: running routers swap without dropping a request."""
    ordering: OrderingName | None = None
    """Picks which queued request is offered next; absent: the policy's default."""
    gate: GateName | None = None
    """Says whether a request may be sent to a replica now or waits in the router; absent: the policy's default."""
    parameters: Parameters = Field(default_factory=Parameters)  # type: ignore[valid-type]
    """Parameters by policy, ordering and gate; blocks that are not in use may stay."""
    queue: QueueLimits = QueueLimits()
    """Bounds of the router's queue."""
    slo: Slo = Slo()
    """What users are promised."""
    signals: SignalsSettings = SignalsSettings()
    """How the router reads the metrics of engines."""
    rebalance: Rebalance = Rebalance()
    """How the operator evens out slow differences between replicas."""


def parameters_of(scheduling: Scheduling, name: str) -> Any:
    """Return the parameters (frozen dataclass) that the document gives for a policy, ordering or gate, or None."""
    return getattr(scheduling.parameters, parameter_field(name), None)
