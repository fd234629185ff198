"""Where the API server is and how to speak to it: the pod's service account, or a kubeconfig file.

Made once by `command`; used by `watch`. Only what list and watch need, so that the router imports no Kubernetes client.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class CredentialsError(ValueError):
    """No usable way to the API server; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class ApiServer:
    """An API server and our credentials for it; files are read again for each new list, since kubelet renews them."""

    url: str
    ca_file: Path | None = None
    token: str = ""
    token_file: Path | None = None
    """wins over `token`; kubelet replaces its content about every hour"""
    certificate_file: Path | None = None
    key_file: Path | None = None
    verify: bool = True

    def headers(self) -> dict[str, str]:
        """Return the headers that authenticate us. Raises OSError where the token file cannot be read."""
        token = self.token_file.read_text().strip() if self.token_file else self.token
        return {"authorization": f"Bearer {token}"} if token else {}

    def ssl_context(self) -> ssl.SSLContext | bool:
        """Return how to verify the server. Raises OSError or ssl.SSLError where a file is missing or no certificate."""
        if not self.url.startswith("https:"):
            return True
        context = ssl.create_default_context(cafile=self.ca_file)
        # Authorities of many clusters lack a key usage, which Python 3.13 by default insists on and no other client does.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


def in_cluster(environment: Mapping[str, str] = os.environ, account: Path = SERVICE_ACCOUNT) -> ApiServer:
    """Return the API server of the cluster this pod runs in. Raises CredentialsError outside a cluster."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise CredentialsError(
            "KUBERNETES_SERVICE_HOST is not set: not in a cluster; give --kubeconfig FILE or --config FILE"
        )
    if not (account / "token").exists():
        raise CredentialsError(f"{account}/token does not exist: the pod needs automountServiceAccountToken: true")
    netloc = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ApiServer(f"https://{netloc}", ca_file=account / "ca.crt", token_file=account / "token")


def from_kubeconfig(path: Path, scratch: Path | None = None) -> ApiServer:
    """Return the API server of the current context. Embedded certificates are written below `scratch`, mode 0600.

    Raises CredentialsError where the file has none, or asks for an exec or auth-provider plug-in.
    """
    import yaml  # noqa: PLC0415  # 2 MB that a router in a cluster never needs

    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document, "contexts", "context", document["current-context"])
        cluster = _named(document, "clusters", "cluster", context["cluster"])
        user = _named(document, "users", "user", context["user"])
        url = str(cluster["server"]).rstrip("/")
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise CredentialsError(f"kubeconfig {path}: {type(error).__name__} {error}") from error
    if "exec" in user or "auth-provider" in user:
        raise CredentialsError(f"kubeconfig {path}: exec and auth-provider plug-ins are not supported; use a token")
    folder = scratch or Path(tempfile.mkdtemp(prefix="halffull-"))
    return ApiServer(
        url,
        ca_file=_file(path, cluster, "certificate-authority", folder),
        token=str(user.get("token", "")),
        token_file=path.parent / user["tokenFile"] if "tokenFile" in user else None,
        certificate_file=_file(path, user, "client-certificate", folder),
        key_file=_file(path, user, "client-key", folder),
        verify=not cluster.get("insecure-skip-tls-verify", False),
    )


def _named(document: Any, kind: str, part: str, name: str) -> dict[str, Any]:
    """The entry `name` of one of a kubeconfig's lists."""
    for entry in document.get(kind) or ():
        if entry["name"] == name:
            found: dict[str, Any] = entry[part] or {}
            return found
    raise KeyError(f"{kind}: no entry {name!r}")


def _file(kubeconfig: Path, entry: dict[str, Any], field: str, scratch: Path) -> Path | None:
    """The file that a kubeconfig names, or the one made of the data that it embeds."""
    if data := entry.get(f"{field}-data"):
        target = scratch / field
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(base64.b64decode(data))
        return target
    return kubeconfig.parent / entry[field] if entry.get(field) else None
