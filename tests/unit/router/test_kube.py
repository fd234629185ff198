"""The way to the API server: from a pod's service account, and from a kubeconfig file."""

import base64
from pathlib import Path

import pytest
import yaml

from halffull.router.sources.kube import CredentialsError, from_kubeconfig, in_cluster

ENVIRONMENT = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


def test_a_pod_reads_its_token_anew_each_time(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    api = in_cluster(ENVIRONMENT, tmp_path)
    assert (api.url, api.ca_file, api.headers()) == (
        "https://10.0.0.1:6443",
        tmp_path / "ca.crt",
        {"authorization": "Bearer first"},
    )
    (tmp_path / "token").write_text("second\n")
    assert api.headers() == {"authorization": "Bearer second"}


def test_an_ipv6_address_gets_brackets(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    assert in_cluster({**ENVIRONMENT, "KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path).url == "https://[fd00::1]:6443"


def test_outside_a_cluster_or_without_a_token_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="KUBERNETES_SERVICE_HOST is not set"):
        in_cluster({}, tmp_path)
    with pytest.raises(CredentialsError, match="automountServiceAccountToken"):
        in_cluster(ENVIRONMENT, tmp_path)


def kubeconfig(folder: Path, user: dict[str, object], cluster: dict[str, object] | None = None) -> Path:
    path = folder / "config"
    document = {
        "current-context": "c",
        "contexts": [{"name": "other", "context": {}}, {"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://k.example:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_kubeconfig_with_embedded_data(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    path = kubeconfig(
        tmp_path,
        {"client-certificate-data": data, "client-key-data": data},
        {"certificate-authority-data": data},
    )
    api = from_kubeconfig(path, tmp_path)
    assert api.url == "https://k.example:6443"
    assert api.headers() == {}
    for file in (api.ca_file, api.certificate_file, api.key_file):
        assert file is not None
        assert file.read_bytes() == b"PEM"
        assert file.stat().st_mode & 0o777 == 0o600


def test_a_kubeconfig_with_files_and_a_token(tmp_path: Path) -> None:
    api = from_kubeconfig(kubeconfig(tmp_path, {"token": "t"}, {"certificate-authority": "ca.crt"}), tmp_path)
    assert (api.ca_file, api.headers()) == (tmp_path / "ca.crt", {"authorization": "Bearer t"})


def test_what_a_kubeconfig_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="exec and auth-provider"):
        from_kubeconfig(kubeconfig(tmp_path, {"exec": {"command": "x"}}), tmp_path)
    (tmp_path / "empty").write_text("{}")
    with pytest.raises(CredentialsError, match="current-context"):
        from_kubeconfig(tmp_path / "empty", tmp_path)
    with pytest.raises(CredentialsError, match="No such file"):
        from_kubeconfig(tmp_path / "none", tmp_path)
