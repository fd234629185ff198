"""References from a resource to objects of Kubernetes in its namespace, and resources of containers."""

from typing import Annotated

from pydantic import Field

from halffull.api.base import Document
from halffull.api.values import Matches, ObjectName, Quantity

Key = Annotated[
    str, Field(min_length=1, max_length=253), Matches("^[-._a-zA-Z0-9]+$", "letters, digits, '-', '_' and '.'")
]
Quantities = Annotated[dict[str, Quantity], Field(max_length=64)]


class NameRef(Document):
    """An object in the same namespace."""

    name: ObjectName
    """Name of the object."""


class CaSecretRef(Document):
    """A Secret with certificate authorities."""

    name: ObjectName
    """Name of the Secret."""
    key: Key = "ca.crt"
    """Key in the Secret whose value is a bundle of PEM certificates."""


class ApiKeySecretRef(Document):
    """A Secret with an API key."""

    name: ObjectName
    """Name of the Secret."""
    key: Key = "api-key"
    """Key in the Secret whose value is the API key."""


class TokenSecretRef(Document):
    """A Secret with a bearer token."""

    name: ObjectName
    """Name of the Secret."""
    key: Key = "token"
    """Key in the Secret whose value is the token."""


class Resources(Document):
    """What a container asks of a node, as in a pod."""

    requests: Quantities | None = None
    """What is reserved, such as cpu: 500m or memory: 1Gi."""
    limits: Quantities | None = None
    """What it may use at most, such as memory: 1Gi."""
