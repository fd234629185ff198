"""The routers' objects: Deployment, Services, ConfigMap, rights. Called by `desired`; the container also by `sidecar`."""

from collections.abc import Iterable
from typing import Any

from halffull.api.model_deployment import ModelDeployment
from halffull.api.router_config import RouterConfig
from halffull.controller import names
from halffull.controller.child import Document, Settings, child, disruption_budget
from halffull.controller.merge import strategic_merge
from halffull.controller.router_config import API_KEY_FOLDER, CA_FOLDER

CONFIG_FOLDER = "/etc/halffull/config"
SECRET_FOLDER = "/etc/halffull/secret"  # noqa: S105 - a folder
TLS_FOLDER = "/etc/halffull/tls"
STATE_FOLDER = "/var/lib/halffull"
ADMIN_TOKEN, PEER_TOKEN = "admin-token", "peer-token"
"""keys of the Secret `<name>-router`"""
STATE_MIB = 64
END_SECONDS = 15
"""grace beyond draining for a router's exit"""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""security context of our containers: the Pod Security Standard `restricted`"""


def container(owner: ModelDeployment, name: str, image: str) -> Document:
    """Return the router's container, without what depends on where it runs."""
    router = owner.spec.router
    probe: Document = {"httpGet": {"path": "/healthz", "port": "admin"}}
    resources = router.resources.dump()
    return {
        "name": name,
        "image": image,
        "command": ["halffull", "router"],
        "args": _args(owner),
        "env": [{"name": "TMPDIR", "value": STATE_FOLDER}],  # the root file system is read-only
        "ports": [
            {"name": "http", "containerPort": names.ROUTER_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": names.ADMIN_PORT, "protocol": "TCP"},
            {"name": "peers", "containerPort": names.PEER_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 2},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6, "timeoutSeconds": 5},
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "admin"},
            # A slow answer is no reason to take a router out: if all nodes are busy, all routers would be. Draining is
            # no matter of this probe, since a terminating pod leaves the endpoints by itself.
            "periodSeconds": 2,
            "failureThreshold": 3,
            "timeoutSeconds": 5,
        },
        **({"resources": resources} if resources else {}),
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {
                "name": volume["name"],
                "mountPath": path,
                **({} if volume["name"] == "halffull-state" else {"readOnly": True}),
            }
            for path, volume in _volumes(owner)
        ],
    }


def _args(owner: ModelDeployment) -> list[str]:
    router = owner.spec.router
    return [
        f"--namespace={owner.metadata.namespace}",
        f"--config-map={names.router(owner.metadata.name)}",
        f"--mounted={CONFIG_FOLDER}",
        f"--state-dir={STATE_FOLDER}",
        f"--port={names.ROUTER_PORT}",
        f"--admin-port={names.ADMIN_PORT}",
        f"--peer-service={names.peer_service(owner.metadata.name)}",
        f"--peer-port={names.PEER_PORT}",
        f"--peer-token-file={SECRET_FOLDER}/{PEER_TOKEN}",
        *([f"--workers={router.workers}"] if router.workers > 1 else []),
        *([f"--tls={TLS_FOLDER}"] if router.tls else []),
        *([f"--admin-token-file={SECRET_FOLDER}/{ADMIN_TOKEN}"] if router.admin_token_secret_ref else []),
    ]


def volumes(owner: ModelDeployment) -> list[Document]:
    """Return the volumes that the router's container mounts."""
    return [volume for _, volume in _volumes(owner)]


def _volumes(owner: ModelDeployment) -> list[tuple[str, Document]]:
    """Return (path, volume). Config and Secret are optional: a router without them starts all the same."""
    spec, own = owner.spec, names.router(owner.metadata.name)
    mounts: list[tuple[str, Document]] = [
        (CONFIG_FOLDER, {"name": "halffull-config", "configMap": {"name": own, "optional": True}}),
        (STATE_FOLDER, {"name": "halffull-state", "emptyDir": {"sizeLimit": f"{_state_mib(owner)}Mi"}}),
        (SECRET_FOLDER, {"name": "halffull-secret", "projected": {"sources": _tokens(owner)}}),
    ]
    if spec.router.tls:
        mounts.append((TLS_FOLDER, _secret("halffull-tls", spec.router.tls.secret_ref.name)))
    if spec.engine.ca_secret_ref:
        mounts.append((CA_FOLDER, _secret("halffull-engine-ca", spec.engine.ca_secret_ref.name)))
    if spec.engine.api_key_secret_ref:
        mounts.append((API_KEY_FOLDER, _secret("halffull-engine-api-key", spec.engine.api_key_secret_ref.name)))
    return mounts


def _state_mib(owner: ModelDeployment) -> int:
    """Return what the routers of a pod may write: half of the usual is for recordings, which may ask for more."""
    router = owner.spec.router
    recorded = router.workers * router.record.max_bytes if router.record else 0
    return STATE_MIB + max(-(-recorded // 2**20) - STATE_MIB // 2, 0)


def _secret(volume: str, secret: str) -> Document:
    return {"name": volume, "secret": {"secretName": secret}}


def _tokens(owner: ModelDeployment) -> list[Document]:
    """Return the sources of the token files: our Secret, and the user's admin token where one is named."""
    own, theirs = names.router(owner.metadata.name), owner.spec.router.admin_token_secret_ref
    admin = (theirs.name, theirs.key) if theirs else (own, ADMIN_TOKEN)
    return [
        {"secret": {"name": own, "optional": True, "items": [{"key": PEER_TOKEN, "path": PEER_TOKEN}]}},
        {"secret": {"name": admin[0], "optional": True, "items": [{"key": admin[1], "path": ADMIN_TOKEN}]}},
    ]


def deployment(owner: ModelDeployment, settings: Settings) -> Document:
    """Return the Deployment of router pods."""
    name, router = owner.metadata.name, owner.spec.router
    selector = names.selector(name, "router")
    template = {
        "metadata": {"labels": names.labels(name, "router")},
        "spec": {
            "serviceAccountName": names.router(name),
            "terminationGracePeriodSeconds": grace_seconds(owner),
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container(owner, "router", router.image or settings.image)],
            "volumes": volumes(owner),
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [_apart(selector)]}},
        },
    }
    spec = {
        "replicas": router.replicas,
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": strategic_merge(template, router.pod_template_patch or {}),
    }
    return child(owner, "apps/v1", "Deployment", names.router(name), "router", spec=spec)


def grace_seconds(owner: ModelDeployment) -> int:
    """Return how long a router may take from SIGTERM to its end."""
    drain = owner.spec.router.drain
    return round(drain.accept_seconds + drain.seconds) + END_SECONDS


def _apart(selector: dict[str, str]) -> Document:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": selector}}
    return {"weight": 100, "podAffinityTerm": term}


def services(owner: ModelDeployment, pods: dict[str, str]) -> list[Document]:
    """Return the Service that clients call, and the headless one that lists the routers; `pods` selects them."""
    name, service = owner.metadata.name, owner.spec.router.service
    public = child(
        owner,
        "v1",
        "Service",
        name,
        "router",
        spec={
            "type": service.type,
            "selector": pods,
            "ports": [_port("http", service.port, names.ROUTER_PORT)],
        },
    )
    if service.annotations:
        public["metadata"]["annotations"] = dict(service.annotations)
    peers = child(
        owner,
        "v1",
        "Service",
        names.peer_service(name),
        "router",
        spec={
            "clusterIP": "None",
            "selector": pods,
            "ports": [
                _port("admin", names.ADMIN_PORT, names.ADMIN_PORT),
                _port("peers", names.PEER_PORT, names.PEER_PORT),
            ],
        },
    )
    return [public, peers]


def _port(name: str, port: int, target: int) -> Document:
    return {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}


def budget(owner: ModelDeployment) -> Document:
    """Return the PodDisruptionBudget of router pods."""
    name = owner.metadata.name
    return disruption_budget(owner, names.router(name), "router", names.selector(name, "router"), 1)


def config_map(owner: ModelDeployment, config: RouterConfig) -> Document:
    """Return the ConfigMap that holds the RouterConfig."""
    data = {names.CONFIG_KEY: config.to_json()}
    return child(owner, "v1", "ConfigMap", names.router(owner.metadata.name), "router", data=data)


def secret(owner: ModelDeployment, admin_token: str, peer_token: str) -> Document:
    """Return the Secret with the routers' tokens; created once, never applied again."""
    data = {ADMIN_TOKEN: admin_token, PEER_TOKEN: peer_token}
    return child(owner, "v1", "Secret", names.router(owner.metadata.name), "router", type="Opaque", stringData=data)


def rights(owner: ModelDeployment, accounts: Iterable[str] = ()) -> list[Document]:
    """Return ServiceAccount, Role and RoleBinding of the routers; `accounts` are those of adopted pods with a sidecar.

    A router may read its own ConfigMap and, since they are found by label, the EndpointSlices of its namespace.
    """
    name = names.router(owner.metadata.name)
    rules: list[dict[str, Any]] = [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
    ]
    namespace = owner.metadata.namespace
    subjects = [
        {"kind": "ServiceAccount", "name": account, "namespace": namespace} for account in sorted({name, *accounts})
    ]
    group = "rbac.authorization.k8s.io"
    return [
        child(owner, "v1", "ServiceAccount", name, "router"),
        child(owner, f"{group}/v1", "Role", name, "router", rules=rules),
        child(
            owner,
            f"{group}/v1",
            "RoleBinding",
            name,
            "router",
            roleRef={"apiGroup": group, "kind": "Role", "name": name},
            subjects=subjects,
        ),
    ]
