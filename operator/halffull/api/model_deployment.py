"""The resources ModelDeployment and SchedulingPolicy, and how they are read from files.

The controller reads them from the API server, `halffull up` from YAML or JSON; both get the same typed values.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from halffull.api.base import Document, Rule
from halffull.api.engine import Engine, EngineLimits, Selector
from halffull.api.errors import DocumentError, sentences
from halffull.api.references import NameRef
from halffull.api.router import Router
from halffull.api.scheduling import Scheduling
from halffull.api.template import Template
from halffull.api.values import Items, Matches, UniqueItems

__all__ = [
    "API_VERSION",
    "DocumentError",
    "Engine",
    "EngineLimits",
    "ModelDeployment",
    "ModelDeploymentSpec",
    "Router",
    "SchedulingPolicy",
    "Selector",
    "Template",
    "load_documents",
]

API_VERSION = "halffull.dev/v1alpha1"
ModelName = Annotated[
    str, Field(min_length=1, max_length=253), Matches(r"^[^\s\x00-\x1f]+$", "a name without white space")
]


class Tokenizer(Document):
    """How prompt tokens are counted."""

    bytes_per_token: Annotated[float, Field(gt=0.1, le=100)] | None = None
    """Bytes of prompt text per token to begin with; absent: 4. The router learns the real ratio from answers."""
    file: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Path of the model's tokenizer.json in the router's container, by which prompts are counted exactly; absent: they are estimated by the ratio."""


class ModelDeploymentSpec(Document):
    """Replicas of one model, the router in front of them, and how requests are scheduled."""

    rules = (
        Rule(
            "replicas is only allowed with engine.template: pods that are adopted, and fixed endpoints, are scaled by their owner",
            "has(self.engine.template) || self.replicas == 1",
            lambda spec: spec.engine.template is not None or spec.replicas == 1,
            "replicas",
        ),
        Rule(
            "scheduling and schedulingPolicyRef cannot both be set: keep one of them",
            "!has(self.scheduling) || !has(self.schedulingPolicyRef)",
            lambda spec: spec.scheduling is None or spec.scheduling_policy_ref is None,
            "schedulingPolicyRef",
        ),
        Rule(
            "router.placement Sidecar needs engine.template or engine.selector: fixed endpoints have no pods",
            "self.router.placement != 'Sidecar' || !has(self.engine.endpoints)",
            lambda spec: spec.router.placement != "Sidecar" or spec.engine.endpoints is None,
            "router",
        ),
        Rule(
            "modelAliases must not repeat model",
            "!has(self.modelAliases) || !(self.model in self.modelAliases)",
            lambda spec: spec.model not in spec.model_aliases,
            "modelAliases",
        ),
    )

    model: ModelName
    """Name of the model as clients and engines write it in requests."""
    model_aliases: Annotated[Items[ModelName], Field(max_length=64), UniqueItems()] = ()
    """Further names under which clients may ask for the model."""
    engine: Engine
    """The replicas."""
    replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Engine pods to run, with engine.template only. `kubectl scale` and a HorizontalPodAutoscaler set it."""
    router: Router = Router()
    """The routing sidecar."""
    resume: Literal["continue", "never"] = "continue"
    """What happens to a started answer whose replica dies: it goes on at another replica where that is possible, or ends with an error."""
    tokenizer: Tokenizer | None = None
    """How prompt tokens are counted."""
    scheduling: Scheduling | None = None
    """Which replica runs a request, and which request goes next. Absent, and no schedulingPolicyRef: policy sal."""
    scheduling_policy_ref: NameRef | None = None
    """A SchedulingPolicy in the same namespace, which several ModelDeployments may share."""


class Metadata(BaseModel):
    """The part of an object's metadata that is read."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="ignore", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=253)]
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Resource(Document):
    """What both resources have."""

    api_version: Literal["halffull.dev/v1alpha1"] = "halffull.dev/v1alpha1"
    metadata: Metadata
    status: dict[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.metadata.namespace, self.metadata.name


class ModelDeployment(Resource):
    """Replicas of one model with a router in front of them."""

    rules = (
        Rule(
            "allowed: 1 to 45 lower-case letters, digits and '-'; first a letter, last not '-': Services are named after it",
            "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,43}[a-z0-9])?$')",
            lambda resource: re.fullmatch("[a-z]([-a-z0-9]{0,43}[a-z0-9])?", resource.metadata.name) is not None,
            "metadata.name",
        ),
    )

    kind: Literal["ModelDeployment"] = "ModelDeployment"
    spec: ModelDeploymentSpec


class SchedulingPolicy(Resource):
    """How requests are scheduled; any number of ModelDeployments may name it."""

    kind: Literal["SchedulingPolicy"] = "SchedulingPolicy"
    spec: Scheduling


KINDS: dict[str, type[ModelDeployment | SchedulingPolicy]] = {
    "ModelDeployment": ModelDeployment,
    "SchedulingPolicy": SchedulingPolicy,
}


def load_documents(text: str, source: str = "input") -> list[ModelDeployment | SchedulingPolicy]:
    """Read all resources of a YAML or JSON text; `source` names it in errors.

    Raises DocumentError, whose message has one line per wrong field: where it is and what is allowed.
    """
    try:
        parsed = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise DocumentError([f"{source}: not YAML: {' '.join(str(error).split())}"]) from error
    loaded: list[ModelDeployment | SchedulingPolicy] = []
    wrong: list[str] = []
    for document in _flat(parsed):
        try:
            loaded.append(_resource(document))
        except DocumentError as error:
            wrong += [f"{source}: {line}" for line in error.lines]
    if wrong:
        raise DocumentError(wrong)
    return loaded


def _flat(documents: list[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list):
            yield from _flat(document["items"])
        elif document is not None:
            yield document


def _resource(document: Any) -> ModelDeployment | SchedulingPolicy:
    if not isinstance(document, dict):
        raise DocumentError([f"a resource is a mapping with apiVersion, kind, metadata and spec, not {document!r:.40}"])
    kind = document.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        what = "required" if kind is None else f"{kind!r} is not allowed"
        raise DocumentError([f"kind: {what}; allowed: {', '.join(KINDS)}"])
    metadata = document.get("metadata")
    name = metadata.get("name", "?") if isinstance(metadata, dict) else "?"
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise DocumentError([f"{kind} {name}: {line}" for line in sentences(error, document, model)]) from error
