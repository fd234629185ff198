"""`spec.engine.template`: the engine pods that halffull starts. Read by the controller; `halffull up` takes `args` and `env`."""

from typing import Annotated, Literal

from pydantic import Field

from halffull.api.base import Document, Rule
from halffull.api.references import Resources
from halffull.api.values import FreeForm, Items, LabelValue, ListMap, Share


class EnvironmentVariable(Document):
    """One environment variable of the engine container, as in a pod."""

    rules = (
        Rule(
            "value and valueFrom cannot both be set",
            "!has(self.value) || !has(self.valueFrom)",
            lambda variable: variable.value is None or variable.value_from is None,
            "valueFrom",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """Its value."""
    value_from: FreeForm | None = None
    """Where its value comes from, as in a pod: secretKeyRef, configMapKeyRef, fieldRef or resourceFieldRef."""


class Toleration(Document):
    """A taint of nodes that engine pods accept, as in a pod."""

    key: str | None = None
    """Key of the taint; absent: every key, with operator Exists."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How key and value are compared."""
    value: str | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; absent: all."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Seconds that a pod stays with effect NoExecute; absent: for ever."""


class Rollout(Document):
    """How engine pods are replaced when the template changes. The defaults need no spare GPU."""

    rules = (
        Rule(
            "maxSurge and maxUnavailable cannot both be 0: no pod could ever be replaced",
            "!(string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])",
            lambda rollout: not {str(rollout.max_surge), str(rollout.max_unavailable)} <= {"0", "0%"},
        ),
    )

    max_surge: Share = 0
    """Pods beyond spec.replicas that may start meanwhile: a number, or a share such as "25%"."""
    max_unavailable: Share = 1
    """Pods that may be away meanwhile: a number, or a share such as "25%"."""
    progress_deadline_seconds: Annotated[int, Field(ge=1, le=86400)] = 3600
    """Seconds without progress after which the roll-out counts as failed."""


class Template(Document):
    """The engine pods that are started. The container is named `engine`."""

    rules = (
        Rule(
            "args must not set --port: set engine.port instead",
            "!has(self.args) || self.args.all(arg, arg != '--port' && !arg.startsWith('--port='))",
            lambda template: not any(arg == "--port" or arg.startswith("--port=") for arg in template.args),
            "args",
        ),
        Rule(
            "terminationGracePeriodSeconds must be more than preStopSeconds, which are part of it",
            "!has(self.preStopSeconds) || !has(self.terminationGracePeriodSeconds)"
            " || self.terminationGracePeriodSeconds > self.preStopSeconds",
            lambda template: (template.termination_grace_period_seconds or 86400) > (template.pre_stop_seconds or 0),
            "terminationGracePeriodSeconds",
        ),
    )

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image of the engine; absent: halffull's own, with type simulated only."""
    command: Annotated[Items[str], Field(max_length=64)] | None = None
    """Entry point; absent: the engine's usual one."""
    args: Annotated[Items[str], Field(max_length=512)] = ()
    """Arguments of the engine. The port and the served model name are added where they are absent."""
    env: Annotated[Items[EnvironmentVariable], Field(max_length=256), ListMap("name")] = ()
    """Environment variables of the engine container."""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs per replica: limit nvidia.com/gpu of the engine container."""
    resources: Resources = Resources()
    """What the engine container asks of its node, besides gpus."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=64)] | None = None
    """Labels of nodes on which engine pods may run."""
    tolerations: Annotated[Items[Toleration], Field(max_length=64)] = ()
    """Taints of nodes that engine pods accept."""
    startup_seconds: Annotated[int, Field(ge=10, le=86400)] = 3600
    """Seconds that an engine may take to load its model before it is restarted."""
    pre_stop_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """Seconds that a terminating engine goes on serving before it is told to stop; absent: what suits the engine."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86400)] | None = None
    """Seconds from the start of termination to the end by force; absent: preStopSeconds and router.drain.seconds together."""
    max_unavailable: Share = 1
    """Replicas that voluntary disruptions, such as draining a node, may take away at once: a number, or a share such as "25%"."""
    rollout: Rollout = Rollout()
    """How engine pods are replaced when the template changes."""
    pod_template_patch: FreeForm | None = None
    """Merged into the pod template as by a strategic merge patch of kubectl: containers, env and volumes by name."""
