"""Reads, from the Secrets that a ModelDeployment names, how its engines and routers are called. For `reconcile`."""

import base64
import binascii
from collections.abc import Mapping
from typing import NamedTuple

from halffull.api.model_deployment import ModelDeployment
from halffull.controller.kube import Kube
from halffull.controller.scrape import Credentials


class Named(NamedTuple):
    """A Secret that a ModelDeployment names."""

    field: str
    """of the spec"""
    secret: str
    keys: tuple[str, ...]
    """that it must have"""


def named_secrets(owner: ModelDeployment) -> tuple[Named, ...]:
    """Return the Secrets without which routers do not start, or engines and routers cannot be asked; pure."""
    engine, router = owner.spec.engine, owner.spec.router
    references = (
        ("engine.caSecretRef", engine.ca_secret_ref),
        ("engine.apiKeySecretRef", engine.api_key_secret_ref),
        ("router.adminTokenSecretRef", router.admin_token_secret_ref),
    )
    found = [Named(field, reference.name, (reference.key,)) for field, reference in references if reference]
    if router.tls:
        found.append(Named("router.tls.secretRef", router.tls.secret_ref.name, ("tls.crt", "tls.key")))
    return tuple(found)


async def credentials(kube: Kube, owner: ModelDeployment) -> tuple[Credentials, tuple[str, ...]]:
    """Return scheme, authority, API key and admin token, and a sentence for each Secret or key that is not there.

    What is absent gives none. Raises ApiError.
    """
    data, values, missing = dict[str, Mapping[str, str] | None](), dict[str, str](), list[str]()
    for field, name, keys in named_secrets(owner):
        if name not in data:
            secret = await kube.get("Secret", owner.metadata.namespace, name)
            data[name] = None if secret is None else secret.get("data") or {}
        there = data[name]
        if there is None:
            missing.append(f"spec.{field}: Secret {name} does not exist")
            continue
        missing += [f"spec.{field}: Secret {name} has no key {key}" for key in keys if not there.get(key)]
        values[field] = _decoded(there.get(keys[0], ""))
    return Credentials(
        owner.spec.engine.scheme,
        ca=values.get("engine.caSecretRef", ""),
        api_key=values.get("engine.apiKeySecretRef", ""),
        admin_token=values.get("router.adminTokenSecretRef", ""),
    ), tuple(missing)


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        return ""
