"""Reads, from the Secrets that a ModelDeployment names, how its engines are called. Called by `reconcile` for `scrape`."""

import base64
import binascii

from halffull.api.model_deployment import ModelDeployment
from halffull.controller.kube import Kube
from halffull.controller.scrape import Credentials


async def credentials(kube: Kube, owner: ModelDeployment) -> Credentials:
    """Return scheme, authority and API key; a Secret or key that is absent gives none. Raises ApiError."""
    engine, namespace = owner.spec.engine, owner.metadata.namespace
    ca, api_key = engine.ca_secret_ref, engine.api_key_secret_ref
    return Credentials(
        engine.scheme,
        ca=await _value(kube, namespace, ca.name, ca.key) if ca else "",
        api_key=await _value(kube, namespace, api_key.name, api_key.key) if api_key else "",
    )


async def _value(kube: Kube, namespace: str, name: str, key: str) -> str:
    secret = await kube.get("Secret", namespace, name)
    encoded = ((secret or {}).get("data") or {}).get(key, "")
    try:
        return base64.b64decode(encoded).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        return ""
