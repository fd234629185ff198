"""The status of both resources: what the operator writes and people, `kubectl get` and autoscalers read.

Figures are rounded by who writes them, so that a status changes only when something did.
"""

from typing import Annotated, Literal

from pydantic import Field

from halffull.api.base import Document
from halffull.api.values import Items, ListMap

MAX_REPLICAS = 100
"""replicas listed at most, the worst first"""

Natural = Annotated[int, Field(ge=0)]


class Condition(Document):
    """One aspect of the resource's state, in the shape that all of Kubernetes uses."""

    type: Annotated[str, Field(max_length=316)]
    """What is stated: Ready, EnginesReady, RouterReady or PolicyApplied; Applied for a SchedulingPolicy."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, in one word for programs."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, in a sentence for people."""
    observed_generation: Annotated[Natural, Field(json_schema_extra={"format": "int64"})]
    """Generation of the resource that this was found for."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When `status` last changed."""


class ReplicaCounts(Document):
    """Replicas by state."""

    total: Natural = 0
    """All replicas that exist."""
    ready: Natural = 0
    """Those that get requests."""
    draining: Natural = 0
    """Those that end: they finish what they have and get nothing new."""
    suspect: Natural = 0
    """Those that have gone silent and get nothing new for now."""
    down: Natural = 0
    """Those that do not answer."""


class Summary(Document):
    """The columns of `kubectl get mdep`."""

    ready: str = ""
    """Ready and wanted replicas, such as 3/4."""
    waiting: str = ""
    """Requests that wait in engines and routers; empty while unknown."""
    kv: str = ""
    """Mean use of the KV cache, such as 45%; empty while unknown."""
    routers: str = ""
    """Ready and wanted routers, such as 2/2."""


class RouterStatus(Document):
    """One router and what it has applied."""

    name: str
    """Name of the router's pod."""
    ready: bool
    """Whether it takes traffic."""
    policy: str | None = None
    """Policy that it schedules by; absent while it has not said."""
    hash: str | None = None
    """Hash of the configuration that it has applied; absent while it has not said."""
    message: str | None = None
    """Why it refused its latest configuration, or could not be asked."""


class ReplicaStatus(Document):
    """One replica."""

    name: str
    """Name of the pod, or HOST:PORT of a fixed endpoint."""
    state: Literal["Ready", "Draining", "Suspect", "Down"]
    """Ready: gets requests. Draining: finishes what it has. Suspect: silent. Down: does not answer."""
    running: Natural | None = None
    """Requests in the engine's batch."""
    waiting: Natural | None = None
    """Requests in the engine's queue."""
    kv_usage_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Use of the KV cache in percent, to the nearest 5."""
    prefill_tokens_per_second: Annotated[float, Field(ge=0)] | None = None
    """Prompt tokens per second that it was seen to process."""
    pressure: Annotated[float, Field(ge=0)] | None = None
    """How full it is: the KV cache in use, or, where requests wait in it, 1 plus those per running one."""
    speed: Annotated[float, Field(ge=0)] | None = None
    """Speed relative to the fastest replica, which is 1; absent: not enough evidence."""
    weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of requests relative to other replicas; below 1 for slow ones."""
    suspended: bool = False
    """Whether the operator has taken it out for now."""
    signals: Literal["fresh", "stale", "none"] = "none"
    """Whether its metrics can be read: fresh, stale, or none ever."""
    reason: str | None = None
    """Why its weight is below 1, it is suspended, or its metrics are not believed."""


class ModelDeploymentStatus(Document):
    """What the operator found."""

    observed_generation: Annotated[Natural, Field(json_schema_extra={"format": "int64"})] = 0
    """Generation of the resource that this status was found for."""
    conditions: Annotated[Items[Condition], ListMap("type")] = ()
    """Ready: requests are served. EnginesReady, RouterReady: all pods are. PolicyApplied: every ready router schedules as the resource says."""
    endpoint: str | None = None
    """URL for clients inside the cluster."""
    policy: str | None = None
    """Policy that routers are told to schedule by."""
    selector: str | None = None
    """Label selector of the engine pods, for a HorizontalPodAutoscaler."""
    replica_counts: ReplicaCounts = ReplicaCounts()
    """Replicas by state."""
    desired_replicas: Natural | None = None
    """Replicas that the load asks for, for an autoscaler; absent while too little was seen."""
    summary: Summary = Summary()
    """The columns of `kubectl get mdep`."""
    routers: Annotated[Items[RouterStatus], ListMap("name")] = ()
    """Every router and what it has applied."""
    replicas: Annotated[Items[ReplicaStatus], Field(max_length=MAX_REPLICAS), ListMap("name")] = ()
    """Replicas, at most 100, the worst first."""


class SchedulingPolicyStatus(Document):
    """What the operator found."""

    observed_generation: Annotated[Natural, Field(json_schema_extra={"format": "int64"})] = 0
    """Generation of the resource that this status was found for."""
    users: Natural = 0
    """ModelDeployments that name this policy."""
    conditions: Annotated[Items[Condition], ListMap("type")] = ()
    """Applied: every ready router of every user schedules as this policy says."""
