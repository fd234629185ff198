"""`spec.engine`: where the replicas of a model are, or how to start them. Read by the controller and by `halffull up`."""

from typing import Annotated, Literal

from pydantic import Field

from halffull.api.base import Document, Rule
from halffull.api.references import ApiKeySecretRef, CaSecretRef
from halffull.api.template import Template
from halffull.api.values import Count, Endpoint, Items, LabelValue, OneOf, Port, UniqueItems
from halffull.engines.catalog import ENGINES

EngineType = Annotated[str, OneOf(dict.fromkeys(ENGINES, ""))]
Scheme = Literal["http", "https"]
EnginePriority = Annotated[
    str,
    OneOf(
        {
            "keep": "what clients say reaches the engine",
            "drop": "what clients say is taken out",
            "send": "the ordering's rank, in place of what clients say",
            "fill": "the ordering's rank where the client says nothing",
        }
    ),
]
_RANKING = sorted(name for name, adapter in ENGINES.items() if adapter.ranks)
_TELLING = sorted(name for name, adapter in ENGINES.items() if adapter.kv_events)


class Selector(Document):
    """Which pods to adopt. It becomes the selector of a Service, hence labels only."""

    match_labels: Annotated[dict[str, LabelValue], Field(min_length=1, max_length=32)]
    """Labels that a pod must have, all of them."""


class EngineLimits(Document):
    """What one replica can do, where the engine does not say it or says it wrong."""

    max_sequences: Count | None = None
    """Requests that the engine runs at once; absent: from its arguments, else the engine's usual default."""
    max_batched_tokens: Count | None = None
    """Tokens of one engine step; absent: from its arguments, else the engine's usual default."""
    kv_tokens: Count | None = None
    """Capacity of the KV cache in tokens; absent: as the engine's metrics say."""
    prefill_tokens_per_second: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Prompt tokens processed per second; absent: learned from answers."""


class KvEvents(Document):
    """Follow what the engines publish of their prefix caches, with vLLM's `--kv-events-config`; needs the extra `kv-events`."""

    port: Port | None = None
    """ZeroMQ port of each engine's first rank, each further one has the next; absent: as the engine says at /kv_event_sources, else 5557."""
    topic: Annotated[str, Field(max_length=253)] = ""
    """Topic under which engines publish, as in their configuration."""


class Engine(Document):
    """The replicas: pods to adopt, fixed addresses, or pods to start."""

    rules = (
        Rule(
            "set exactly one of selector (adopt pods that exist), endpoints (fixed addresses) and template (start pods)",
            "[has(self.selector), has(self.endpoints), has(self.template)].filter(x, x).size() == 1",
            lambda engine: sum(way is not None for way in (engine.selector, engine.endpoints, engine.template)) == 1,
        ),
        Rule(
            "template.image is required unless type is simulated",
            "!has(self.template) || has(self.template.image) || self.type == 'simulated'",
            lambda engine: engine.template is None or engine.template.image is not None or engine.type == "simulated",
        ),
        Rule(
            "caSecretRef is only allowed with scheme https",
            "!has(self.caSecretRef) || self.scheme == 'https'",
            lambda engine: engine.ca_secret_ref is None or engine.scheme == "https",
            "caSecretRef",
        ),
        Rule(
            "scheme https is not possible with type simulated, whose engines serve http",
            "self.type != 'simulated' || self.scheme == 'http'",
            lambda engine: engine.type != "simulated" or engine.scheme == "http",
            "scheme",
        ),
        Rule(
            f"priority send and fill are only possible with type {' and '.join(_RANKING)}",
            f"!(self.priority in ['send', 'fill']) || self.type in {_RANKING}",
            lambda engine: engine.priority not in {"send", "fill"} or engine.type in _RANKING,
            "priority",
        ),
        Rule(
            f"kvEvents is only possible with type {' and '.join(_TELLING)}",
            f"!has(self.kvEvents) || self.type in {_TELLING}",
            lambda engine: engine.kv_events is None or engine.type in _TELLING,
            "kvEvents",
        ),
    )

    type: EngineType = "vllm"
    """The inference server that runs in the replicas."""
    port: Port = 8000
    """Port on which each engine pod serves its API and its metrics; fixed endpoints name their own."""
    selector: Selector | None = None
    """Adopt the pods that have these labels. They are not restarted, unless router.placement is Sidecar."""
    endpoints: Annotated[Items[Endpoint], Field(min_length=1, max_length=1000), UniqueItems()] | None = None
    """Engines at fixed addresses or names, each HOST:PORT; names are resolved again and again."""
    template: Template | None = None
    """Start engine pods; spec.replicas says how many."""
    drain: Annotated[Items[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=1000)] = ()
    """Names of replicas (of pods, or HOST:PORT) that get nothing new: what has not started goes elsewhere, what runs may finish."""
    scheme: Scheme = "http"
    """How engines are called."""
    ca_secret_ref: CaSecretRef | None = None
    """Certificate authorities that the engines' certificates must chain to; absent: those of the router's image."""
    api_key_secret_ref: ApiKeySecretRef | None = None
    """Bearer token for halffull's own calls, such as metrics; clients' requests keep their own."""
    limits: EngineLimits = EngineLimits()
    """Overrides what the engine says of itself."""
    priority: EnginePriority = "keep"
    """The field `priority` of requests, by which an engine with `--scheduling-policy priority` serves what waits in it."""
    kv_events: KvEvents | None = None
    """Have the engines tell what their prefix caches hold, for policies that look for prefixes; absent: it is estimated."""
