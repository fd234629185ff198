"""Reads the files of `halffull up` and says what runs: each ModelDeployment with the SchedulingPolicy that it names.

Called by `up`, which looks again and again. Nothing is taken over until a file has stayed the same for two looks, and
until all files are right: a half-written file, or a wrong one, leaves what runs as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from halffull.api.errors import DocumentError
from halffull.api.model_deployment import ModelDeployment, SchedulingPolicy, load_documents
from halffull.engines.catalog import ENGINES
from halffull.router.files import Identity, identity

Resource = ModelDeployment | SchedulingPolicy
Key = tuple[str, str]
"""namespace and name"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One ModelDeployment as the files have it."""

    deployment: ModelDeployment
    policy: SchedulingPolicy | None
    """what `schedulingPolicyRef` names; None: it names nothing, or something that no file has"""

    @property
    def missing_policy(self) -> str | None:
        """The name of a SchedulingPolicy that no file has."""
        reference = self.deployment.spec.scheduling_policy_ref
        return reference.name if reference and self.policy is None else None


class Files:
    """The files, and the last good state of them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._read: tuple[Identity, ...] = ()
        self._seen: tuple[Identity, ...] = ()
        self._last: dict[tuple[str, Key], Resource] = {}

    def load(self) -> list[Wanted]:
        """Read all files; raises DocumentError, one line per reason, each with file and field."""
        self._seen = self._read = self._stamps()
        found: dict[tuple[str, Key], Resource] = {}
        wrong: list[str] = []
        for path in self._paths:
            try:
                resources = _resources(path)
            except DocumentError as error:
                wrong += error.lines
                continue
            for resource in resources:
                name = (resource.kind, resource.key)
                if name in found:
                    wrong.append(f"{path}: {resource.kind} {resource.metadata.name} is there twice")
                found[name] = self._numbered(resource)
        wanted = list(_resolved(found))
        if not wanted and not wrong:
            wrong.append(f"{', '.join(map(str, self._paths))}: no ModelDeployment in it")
        for each in wanted:
            wrong += only_in_a_cluster(each.deployment)
        if wrong:
            raise DocumentError(wrong)
        self._last = found
        return wanted

    def changed(self) -> bool:
        """Look: whether the files differ from those last read, and have not changed since the last look."""
        before, self._seen = self._seen, self._stamps()
        return self._seen == before and self._seen != self._read

    def _stamps(self) -> tuple[Identity, ...]:
        return tuple(map(identity, self._paths))

    def _numbered(self, resource: Resource) -> Resource:
        """The resource with a generation that counts the changes of its spec, as the API server's does."""
        last = self._last.get((resource.kind, resource.key))
        generation = 1 if last is None else last.metadata.generation + (last.spec != resource.spec)
        metadata = resource.metadata.model_copy(update={"generation": generation})
        return resource.model_copy(update={"metadata": metadata})


def only_in_a_cluster(deployment: ModelDeployment) -> list[str]:
    """Sentences for what a ModelDeployment asks that this machine cannot do; none if it can run here."""
    engine, router = deployment.spec.engine, deployment.spec.router
    template = engine.template
    wrong = {
        "engine.selector": engine.selector and "pods are in a cluster: use endpoints or template",
        "engine.caSecretRef": engine.ca_secret_ref and "there are no Secrets outside a cluster",
        "engine.apiKeySecretRef": engine.api_key_secret_ref and "there are no Secrets outside a cluster",
        "router.adminTokenSecretRef": router.admin_token_secret_ref and "there are no Secrets outside a cluster",
        "router.tls": router.tls and "there are no Secrets outside a cluster",
        "engine.template.command": template
        and not (template.command or ENGINES[engine.type].container.command)
        and f"is needed to start {engine.type} without its image, e.g. [vllm, serve]",
        "engine.template.env": template
        and any(variable.value_from for variable in template.env)
        and "valueFrom needs a cluster: use value",
    }
    name = deployment.metadata.name
    return [f"ModelDeployment {name}: spec.{field}: {reason}" for field, reason in wrong.items() if reason]


def _resources(path: Path) -> list[Resource]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DocumentError([f"{path}: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise DocumentError([f"{path}: {error}"]) from error
    resources = load_documents(text, str(path))
    if not resources:
        raise DocumentError([f"{path}: no resources in it"])
    return resources


def _resolved(found: Mapping[tuple[str, Key], Resource]) -> Iterator[Wanted]:
    for resource in found.values():
        if isinstance(resource, ModelDeployment):
            reference = resource.spec.scheduling_policy_ref
            name = ("SchedulingPolicy", (resource.metadata.namespace, reference.name if reference else ""))
            policy = found.get(name)
            yield Wanted(resource, policy if isinstance(policy, SchedulingPolicy) else None)
