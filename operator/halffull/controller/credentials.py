"""Reads, from the Secrets that a ModelDeployment names, how its engines and routers are called. For `reconcile`."""

import base64
import binascii

from halffull.api.model_deployment import ModelDeployment
from halffull.controller.kube import Kube
from halffull.controller.scrape import Credentials


def names_secrets(owner: ModelDeployment) -> bool:
    """Whether there is anything to read; pure."""
    engine = owner.spec.engine
    return any((engine.ca_secret_ref, engine.api_key_secret_ref, owner.spec.router.admin_token_secret_ref))


async def credentials(kube: Kube, owner: ModelDeployment) -> Credentials:
    """Return scheme, authority, API key and admin token; a Secret or key that is absent gives none. Raises ApiError."""
    engine, namespace = owner.spec.engine, owner.metadata.namespace
    ca, api_key, admin = engine.ca_secret_ref, engine.api_key_secret_ref, owner.spec.router.admin_token_secret_ref
    return Credentials(
        engine.scheme,
        ca=await _value(kube, namespace, ca.name, ca.key) if ca else "",
        api_key=await _value(kube, namespace, api_key.name, api_key.key) if api_key else "",
        admin_token=await _value(kube, namespace, admin.name, admin.key) if admin else "",
    )


async def _value(kube: Kube, namespace: str, name: str, key: str) -> str:
    secret = await kube.get("Secret", namespace, name)
    encoded = ((secret or {}).get("data") or {}).get(key, "")
    try:
        return base64.b64decode(encoded).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        return ""
