"""RouterConfig: the document that the operator (or `halffull up`) gives to a router, and how the router reads it.

In a cluster it is key `router.json` of the ConfigMap `<name>-router`; elsewhere a file. Its hash is what routers report
back as applied; weights are not part of the hash, so a change of weights is no roll-out.
"""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import Field

from halffull.api.base import Document
from halffull.api.engine import EngineLimits, EnginePriority, EngineType, KvEvents, Scheme
from halffull.api.errors import DocumentError
from halffull.api.model_deployment import Tokenizer
from halffull.api.newer import read_known
from halffull.api.router import AccessLog, Drain, Record, Retries, RouterLimits
from halffull.api.scheduling import Scheduling
from halffull.api.values import Items, Port, SecondsOrZero

CONFIG_MAP_KEY = "router.json"


class Source(Document):
    """The resource, and the state of it, that this document was made from."""

    namespace: str = "default"
    name: str
    uid: str = ""
    generation: int = 0


class EngineTarget(Document):
    """Where the replicas are and how they are called."""

    type: EngineType = "vllm"
    scheme: Scheme = "http"
    port: Port = 8000
    service: str | None = None
    """name of the headless Service whose EndpointSlices list the replicas; absent: `endpoints` do"""
    endpoints: Items[str] | None = None
    """fixed addresses, each HOST:PORT"""
    limits: EngineLimits = EngineLimits()
    ca_file: str | None = None
    """path of certificate authorities (PEM) in the router's container"""
    api_key_file: str | None = None
    """path of a file that holds the bearer token for the router's own calls"""
    priority: EnginePriority = "keep"
    """what becomes of the field `priority` of requests"""
    kv_events: KvEvents | None = None
    """how engines publish what their prefix caches hold; absent: that is estimated"""


class RouterSettings(Document):
    """The part of `spec.router` that a running router follows."""

    limits: RouterLimits = RouterLimits()
    drain: Drain = Drain()
    retries: Retries = Retries()
    access_log: AccessLog = AccessLog()
    record: Record | None = None
    request_timeout_seconds: Annotated[float, Field(gt=0)] = 3600.0


class ReplicaBalance(Document):
    """What the operator says of one replica. Absent ones are neutral: weight 1, not suspended."""

    weight: Annotated[float, Field(ge=0.1, le=1)] = 1.0
    """relative share, from slow facts"""
    suspended: bool = False
    """gets no new request while this document is valid"""
    drain: bool = False
    """gets no new request, whatever the document's age"""
    distrusted: bool = False
    """its metrics contradict the books: routers do not go by them while this document is valid"""
    reason: str = ""
    """why, for people"""


class Balance(Document):
    """Weights and suspensions by replica name; not part of the hash."""

    valid_seconds: SecondsOrZero = 60.0
    """seconds after receipt at which weights and suspensions lapse to neutral"""
    renewed: Annotated[int, Field(ge=0)] = 0
    """counts up while something is not neutral, so that the document changes and routers take it anew"""
    replicas: dict[str, ReplicaBalance] = Field(default_factory=dict)

    @property
    def renew_seconds(self) -> float:
        """Seconds after which it is published again, so that nothing lapses though two times fail."""
        return self.valid_seconds / 3


class RouterConfig(Document):
    """All that a router needs to know of its ModelDeployment."""

    version: Literal[1] = 1
    hash: str = ""
    """`content_hash()` at the time it was made"""
    model_deployment: Source
    scheduling_policy: Source | None = None
    """the SchedulingPolicy that `scheduling` was taken from; absent: it was inline, or is the default"""
    model: str
    model_aliases: Items[str] = ()
    engine: EngineTarget
    scheduling: Scheduling = Scheduling()
    resume: Literal["continue", "never"] = "continue"
    tokenizer: Tokenizer | None = None
    router: RouterSettings = RouterSettings()
    balance: Balance = Balance()

    def content_hash(self) -> str:
        """Return the sha256 (hex) of the canonical JSON of everything but `hash` and `balance`."""
        content = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"hash", "balance"})
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def seal(self) -> Self:
        """Return the same document with its hash set."""
        return self.model_copy(update={"hash": self.content_hash()})

    def to_json(self) -> str:
        """Return the document as text; the same document is always the same text."""
        return json.dumps(self.dump(), indent=1, sort_keys=True) + "\n"


def parse_router_config(text: str | bytes) -> tuple[RouterConfig, list[str]]:
    """Return the document and the paths of fields that this version does not know, which are left out.

    Raises DocumentError if it is no valid RouterConfig, for instance names a policy that this router does not have.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DocumentError([f"not JSON: {error}"]) from error
    return read_known(RouterConfig, document)
