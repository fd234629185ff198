"""`spec.router`: the routing sidecar. The controller reads where and how it runs, the router its limits (via RouterConfig)."""

from typing import Annotated, Literal

from pydantic import Field

from halffull.api.base import Document, Rule
from halffull.api.references import NameRef, Resources, TokenSecretRef
from halffull.api.values import Bytes, Count, FreeForm, Port, Seconds, SecondsOrZero


class Service(Document):
    """The Service that clients call; it has the name of the ModelDeployment."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Who can reach it, as in a Service."""
    port: Port = 80
    """Port of the Service."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Annotations of the Service, such as those that a cloud reads for a load balancer."""


class Tls(Document):
    """Serve HTTPS."""

    secret_ref: NameRef
    """Secret of type kubernetes.io/tls with certificate and key; a renewed one is used without a restart."""


class RouterLimits(Document):
    """What the router accepts of clients."""

    head_bytes: Annotated[int, Field(ge=1024, le=2**20)] = 32 << 10
    """Bytes of request line and headers; more is answered with 431."""
    headers: Annotated[int, Field(ge=8, le=1000)] = 100
    """Number of headers; more is answered with 431."""
    body_bytes: Bytes = 64 << 20
    """Bytes of a request body; more is answered with 413."""
    connections: Count = 10_000
    """Client connections per router process; further ones are closed at once."""
    head_seconds: Seconds = 10.0
    """Seconds for a client to send a request's head; then 408."""
    body_seconds: Seconds = 60.0
    """Seconds for a client to send a request's body; then 408."""
    idle_seconds: Seconds = 75.0
    """Seconds that an idle client connection is kept."""
    connection_seconds: Seconds = 600.0
    """Age in seconds from which a client connection is closed after an answer, so that clients spread over routers."""
    connect_seconds: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Seconds to connect to a replica before another one is tried."""


class Drain(Document):
    """How a router stops."""

    accept_seconds: SecondsOrZero = 5.0
    """Seconds from SIGTERM on in which new requests are still taken, since traffic stops with a delay."""
    seconds: SecondsOrZero = 120.0
    """Seconds that running answers have to end after that."""


class Retries(Document):
    """When a request that has not started is tried at another replica."""

    attempts: Annotated[int, Field(ge=1, le=16)] = 4
    """Replicas that are tried for one request, the first included. 1: never try again."""
    budget_percent: Annotated[float, Field(ge=0, le=100)] = 20.0
    """Requests that may be sent again after a refusal by a living engine, in percent of all of the last ten seconds."""
    budget_minimum: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Requests that may be sent again in ten seconds in any case."""


class AccessLog(Document):
    """One JSON line per finished request on the router's standard output; it holds no text of prompts or answers."""

    sample: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of requests that are written, 0 to 1; 0: none."""


class Record(Document):
    """A file of what requests were like and what became of them, for `halffull simulate --trace`; it holds no text."""

    max_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 36)] = 32 << 20
    """Bytes of disk per router process; the oldest half goes first. A request takes about 0.4 kB, and 20 bytes per 512 bytes of its prompt."""


class Router(Document):
    """The routing sidecar."""

    rules = (
        Rule(
            "podTemplatePatch needs placement Deployment: with Sidecar, patch the pods of the engine",
            "!has(self.podTemplatePatch) || self.placement == 'Deployment'",
            lambda router: router.pod_template_patch is None or router.placement == "Deployment",
            "podTemplatePatch",
        ),
    )

    placement: Literal["Deployment", "Sidecar"] = "Deployment"
    """Where routers run: pods of their own, or a native sidecar container in each engine pod."""
    replicas: Annotated[int, Field(ge=1, le=100)] = 2
    """Router pods, with placement Deployment."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Router processes per router pod."""
    service: Service = Service()
    """The Service that clients call."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image of the router; absent: the operator's own."""
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "128Mi"})
    """What the router container asks of its node. Without requests it would be the first to starve on a full node."""
    pod_template_patch: FreeForm | None = None
    """Merged into the router's pod template as by a strategic merge patch of kubectl, with placement Deployment."""
    tls: Tls | None = None
    """Serve HTTPS; absent: HTTP."""
    admin_token_secret_ref: TokenSecretRef | None = None
    """Bearer token for the admin port's /status, /decisions and /recording; absent: they are open."""
    limits: RouterLimits = RouterLimits()
    """What the router accepts of clients."""
    drain: Drain = Drain()
    """How a router stops."""
    retries: Retries = Retries()
    """When a request that has not started is tried at another replica."""
    access_log: AccessLog = AccessLog()
    """Lines for finished requests."""
    record: Record | None = None
    """Record requests, without their text, for replays under other policies; absent: do not."""
    request_timeout_seconds: Seconds = 3600.0
    """Seconds from a request's arrival to the end of its answer."""
