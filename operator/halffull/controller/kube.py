"""The API server, and nothing else: the only module of the operator that talks to it (kopf's watches aside).

Every call has a time limit. Objects go in and come out as plain documents.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.dynamic import DynamicClient
from kubernetes.aio.dynamic.resource import Resource

from halffull.controller.names import FIELD_MANAGER

TIMEOUT_S = 10.0
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"

Document = dict[str, Any]


def _resource(group: str, version: str, kind: str, plural: str) -> Resource:
    prefix = "apis" if group else "api"
    return Resource(prefix=prefix, group=group, api_version=version, kind=kind, namespaced=True, name=plural, verbs=[])


RESOURCES: Mapping[str, Resource] = {
    resource.kind: resource
    for resource in (
        _resource("halffull.dev", "v1alpha1", "ModelDeployment", "modeldeployments"),
        _resource("halffull.dev", "v1alpha1", "SchedulingPolicy", "schedulingpolicies"),
        _resource("", "v1", "ConfigMap", "configmaps"),
        _resource("", "v1", "Pod", "pods"),
        _resource("", "v1", "Secret", "secrets"),
        _resource("", "v1", "Service", "services"),
        _resource("", "v1", "ServiceAccount", "serviceaccounts"),
        _resource("apps", "v1", "Deployment", "deployments"),
        _resource("apps", "v1", "StatefulSet", "statefulsets"),
        _resource("coordination.k8s.io", "v1", "Lease", "leases"),
        _resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        _resource("events.k8s.io", "v1", "Event", "events"),
        _resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        _resource("rbac.authorization.k8s.io", "v1", "Role", "roles"),
        _resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    )
}
"""every kind that the operator reads or writes, so that no discovery is needed"""


class ApiError(Exception):
    """The API server refused a call, or could not be reached (`status` 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def refusal(self) -> bool:
        """Whether the object itself was found wrong, so that the same call will fail again.

        500 is what a server-side apply gets for a field that the kind does not have.
        """
        return self.status in {400, 403, 422} or (self.status == 500 and "declared in schema" in str(self))


class Kube:
    """Calls to one API server; an async context manager."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._client = ApiClient(configuration)
        self._dynamic = DynamicClient(self._client)

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> "Kube":
        """Read `kubeconfig`, or the service account of this pod where it is None; makes no call. Raises ConfigException."""
        configuration = Configuration()
        if kubeconfig is None:
            load_incluster_config(client_configuration=configuration)
        else:
            await _load(kubeconfig, configuration)
        # Authorities of many clusters lack a key usage, which Python 3.13 by default insists on and no other client does.
        configuration.disable_strict_ssl_verification = True
        return cls(configuration)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def apply(self, document: Mapping[str, Any], *, field_manager: str = FIELD_MANAGER) -> Document:
        """Server-side apply `document`, taking over fields that others set; return the object."""
        path = self._path(document["kind"], document["metadata"]["namespace"], document["metadata"]["name"])
        return await self._apply(path, document, field_manager)

    async def apply_status(self, document: Mapping[str, Any]) -> Document:
        """Server-side apply the status in `document`; the object must exist."""
        path = self._path(document["kind"], document["metadata"]["namespace"], document["metadata"]["name"])
        return await self._apply(f"{path}/status", document, FIELD_MANAGER)

    async def create(self, document: Mapping[str, Any]) -> Document | None:
        """Create an object; return None if it exists already."""
        path = self._path(document["kind"], document["metadata"]["namespace"])
        try:
            return await self._call("post", path, body=document)
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    async def get(self, kind: str, namespace: str, name: str) -> Document | None:
        """Return an object, or None if there is none."""
        try:
            return await self._call("get", self._path(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def items(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None, limit: int | None = None
    ) -> list[Document]:
        """Return the objects of a kind in one namespace, or in all (None); at most `limit`."""
        answer = await self._call("get", self._path(kind, namespace), label_selector=labels, limit=limit)
        items: list[Document] = answer["items"]
        return items

    async def snapshot(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None
    ) -> tuple[int, list[Document]]:
        """Return the objects of a kind in one namespace, or in all (None), and the version at which they were so."""
        answer = await self._call("get", self._path(kind, namespace), label_selector=labels)
        return int(answer["metadata"]["resourceVersion"]), answer["items"]

    async def merge(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Document:
        """JSON-merge `patch` into an object."""
        return await self._call("patch", self._path(kind, namespace, name), body=patch, content_type=_MERGE)

    async def replace(self, document: Mapping[str, Any]) -> Document:
        """Replace an object; fails with 409 if it changed since its resourceVersion was read."""
        path = self._path(document["kind"], document["metadata"]["namespace"], document["metadata"]["name"])
        return await self._call("put", path, body=document)

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete an object (only the one with that uid, if given) and what it owns; absent is fine."""
        body: Document = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("delete", self._path(kind, namespace, name), body=body)
        except ApiError as error:
            if error.status not in {404, 409}:
                raise

    @staticmethod
    def _path(kind: str, namespace: str | None, name: str | None = None) -> str:
        path: str = RESOURCES[kind].path(name=name, namespace=namespace)
        return path

    async def _apply(self, path: str, document: Mapping[str, Any], field_manager: str) -> Document:
        return await self._call(
            "patch", path, body=document, content_type=_APPLY, field_manager=field_manager, force_conflicts=True
        )

    async def _call(self, method: str, path: str, **options: Any) -> Document:
        """Make one call. Raises ApiError, with the server's own message where it sent one."""
        try:
            answer = await self._dynamic.request(method, path, serialize=False, _request_timeout=TIMEOUT_S, **options)
            document: Document = await answer.json()
        except ApiException as error:
            raise ApiError(int(error.status or 0), f"{method} {path}: {_message(error)}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, f"{method} {path}: {type(error).__name__}: {error}") from error
        return document


def _message(error: ApiException) -> str:
    """Return what the server said, in one line."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, TypeError, KeyError):
        return f"{error.status} {error.reason}"


async def _load(kubeconfig: Path, configuration: Configuration) -> None:
    try:
        kubeconfig.read_bytes()  # noqa: ASYNC240 - nothing runs yet; the client takes no file for one without contexts
        await load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    except OSError as error:
        raise ConfigException(error.strerror or str(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ConfigException(f"it is no kubeconfig: {' '.join(str(error).split())}") from error
