"""The engines' objects: Deployment and PodDisruptionBudget with `engine.template`, and the headless Service. For `desired`.

Fit for GPUs: nothing surges, one pod is away at a time, models may load for an hour, and a pod that ends first leaves the
endpoints and finishes what it runs.
"""

from halffull.api.model_deployment import ModelDeployment, Template
from halffull.controller import names, sidecar
from halffull.controller.child import TEMPLATE_HASH, Document, Live, Settings, child, digest, disruption_budget
from halffull.controller.merge import strategic_merge
from halffull.controller.routers import RESTRICTED, grace_seconds, volumes
from halffull.engines.base import Adapter
from halffull.engines.catalog import ENGINES

ENGINE = "engine"
"""name of the engine's container"""
PROBE_SECONDS = 5
TERMINATION_SECONDS = 30
"""grace beyond draining for an engine's exit"""


def service(owner: ModelDeployment) -> Document:
    """Return the headless Service whose EndpointSlices list the engine pods."""
    engine, name = owner.spec.engine, owner.metadata.name
    pods = dict(engine.selector.match_labels) if engine.selector else names.selector(name, ENGINE)
    port = {"name": "http", "port": engine.port, "targetPort": engine.port, "protocol": "TCP"}
    spec = {"clusterIP": "None", "selector": pods, "ports": [port]}
    return child(owner, "v1", "Service", names.engine_service(name), ENGINE, spec=spec)


def budget(owner: ModelDeployment, template: Template) -> Document:
    """Return the PodDisruptionBudget of engine pods."""
    name = owner.metadata.name
    selector = names.selector(name, ENGINE)
    return disruption_budget(owner, names.engine_deployment(name), ENGINE, selector, template.max_unavailable)


def deployment(owner: ModelDeployment, template: Template, settings: Settings, live: Live) -> Document:
    """Return the Deployment of engine pods.

    Images that we choose (a sidecar's, a simulated engine's) stay as `live` has them while nothing else in the pod
    template changes: an upgrade of the operator restarts no engine.
    """
    name = owner.metadata.name
    pod_template = _pod_template(owner, template)
    shape = digest(pod_template)
    _set_images(pod_template, settings, live, shape)
    spec = {
        "replicas": owner.spec.replicas,
        "selector": {"matchLabels": names.selector(name, ENGINE)},
        "progressDeadlineSeconds": template.rollout.progress_deadline_seconds,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {
                "maxSurge": template.rollout.max_surge,
                "maxUnavailable": template.rollout.max_unavailable,
            },
        },
        "template": pod_template,
    }
    document = child(owner, "apps/v1", "Deployment", names.engine_deployment(name), ENGINE, spec=spec)
    document["metadata"]["annotations"] = {TEMPLATE_HASH: shape}
    return document


def _pod_template(owner: ModelDeployment, template: Template) -> Document:
    """Return the pod template with the user's patch; images that we choose are empty."""
    router = owner.spec.router
    adapter = ENGINES[owner.spec.engine.type]
    pre_stop = adapter.container.pre_stop_seconds if template.pre_stop_seconds is None else template.pre_stop_seconds
    grace = template.termination_grace_period_seconds
    if grace is None:
        grace = pre_stop + max(round(router.drain.seconds), TERMINATION_SECONDS)
    spec: Document = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": grace,
        "containers": [_container(owner, template, adapter, pre_stop)],
    }
    if template.node_selector:
        spec["nodeSelector"] = dict(template.node_selector)
    if template.tolerations:
        spec["tolerations"] = [toleration.dump() for toleration in template.tolerations]
    if router.placement == "Sidecar":
        spec["automountServiceAccountToken"] = True
        spec["serviceAccountName"] = names.router(owner.metadata.name)
        spec["initContainers"] = [sidecar.native_sidecar(owner, router.image or "")]
        spec["volumes"] = volumes(owner)
        spec["terminationGracePeriodSeconds"] = max(grace, pre_stop + grace_seconds(owner))
    pod_template = {"metadata": {"labels": names.labels(owner.metadata.name, ENGINE)}, "spec": spec}
    return strategic_merge(pod_template, template.pod_template_patch or {})


def _container(owner: ModelDeployment, template: Template, adapter: Adapter, pre_stop: int) -> Document:
    engine = owner.spec.engine
    # with a command of the user's own its arguments may stand there too: nothing is added that it has
    own = list(template.command or ())
    args = adapter.container.args(engine.port, owner.spec.model, [*own, *template.args])[len(own) :]
    command = own or list(adapter.container.command)
    probe = {"httpGet": {"path": adapter.container.health_path, "port": "http", "scheme": engine.scheme.upper()}}
    failures = -(-template.startup_seconds // PROBE_SECONDS)
    container: Document = {
        "name": ENGINE,
        "image": template.image or "",
        "args": args,
        "ports": [{"name": "http", "containerPort": engine.port, "protocol": "TCP"}],
        "startupProbe": {**probe, "periodSeconds": PROBE_SECONDS, "failureThreshold": failures, "timeoutSeconds": 5},
        "readinessProbe": {**probe, "periodSeconds": PROBE_SECONDS, "failureThreshold": 3, "timeoutSeconds": 5},
    }
    if command:
        container["command"] = command
    if template.env:
        container["env"] = [variable.dump() for variable in template.env]
    resources = template.resources.dump()
    if template.gpus:
        resources.setdefault("limits", {})["nvidia.com/gpu"] = str(template.gpus)
    if resources:
        container["resources"] = resources
    if pre_stop:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": pre_stop}}}
    if engine.type == "simulated":
        container["securityContext"] = RESTRICTED
    return container


def _set_images(pod_template: Document, settings: Settings, live: Live, shape: str) -> None:
    """Fill in the images that neither the resource nor its patch names."""
    spec = pod_template["spec"]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        if container["name"] in {ENGINE, names.SIDECAR} and not container.get("image"):
            container["image"] = live.image(container["name"], shape, settings.image)
