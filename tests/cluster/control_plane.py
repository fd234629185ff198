"""A real Kubernetes control plane for tests: etcd, kube-apiserver and kube-controller-manager on loopback.

The session fixture `cluster` of tests/conftest.py starts one. Nothing is mocked; there is no node, so pods stay Pending.
Whatever ends the tests, even SIGKILL, ends these processes too: see `_Reaper`.
"""

import base64
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from ssl import create_default_context
from typing import Any, Self

import yaml

START_SECONDS = 60.0
P256_SCALAR_BYTES = 32


class StartError(RuntimeError):
    """A process of the control plane did not come up; the message holds the end of its log."""


class KubectlError(RuntimeError):
    """kubectl failed; the message is what it printed."""


def signing_key() -> bytes:
    """A new EC P-256 private key in PEM, for service account tokens (RFC 5915; the public key may be left out)."""
    scalar = (secrets.randbits(8 * P256_SCALAR_BYTES - 1) | 1).to_bytes(
        P256_SCALAR_BYTES, "big"
    )  # below the group order
    der = bytes.fromhex("30310201010420") + scalar + bytes.fromhex("a00a06082a8648ce3d030107")
    return b"-----BEGIN EC PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END EC PRIVATE KEY-----\n"


def free_port() -> int:
    """A port nobody listens on, below the ephemeral ones, so that it stays free while the API server is down."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class _Reaper:
    """Kills a process group and removes a directory as soon as its standard input ends.

    Only this process holds the other end of that pipe, so the reaper acts when `reap` is called and when the tests die.
    """

    def __init__(self, group: int, directory: Path) -> None:
        script = 'cat >/dev/null; kill -s KILL -- "-$1"; until rm -rf "$2"; do sleep 0.1; done'
        self._process = subprocess.Popen(
            ["sh", "-c", script, "reaper", str(group), str(directory)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def reap(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class ControlPlane:
    """One control plane. A context manager; `kubectl`, `helm` and `get` talk to it as administrator.

    `kubeconfig`, `server`, `token` and `ca_file` are what other clients need.
    """

    def __init__(self, binaries: Mapping[str, Path]) -> None:
        self.binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="halffull-cluster-"))
        self.kubeconfig = self.directory / "admin.kubeconfig"
        self.token = secrets.token_hex(16)
        self._controller_token = secrets.token_hex(16)
        self._port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._reaper: _Reaper | None = None

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The certificate that the API server made for itself, with the authority that signed it."""
        return self.directory / "apiserver.crt"

    def __enter__(self) -> Self:
        try:
            self._start_etcd()
            self._write_credentials()
            self._start_api_server_on_a_free_port()
            self.start("kube-controller-manager", self._controller_manager_arguments())
            self._wait("the default ServiceAccount", self._has_default_service_account)  # no pod is admitted before
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._reaper is not None:
            self._reaper.reap()
        for process in self._processes.values():
            process.wait()

    # --- clients

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl; return its standard output. Raises KubectlError with what it said."""
        return self._run("kubectl", *arguments, stdin=stdin)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Run helm, whose state stays in this control plane's directory. Raises KubectlError with what it said."""
        return self._run("helm", *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        """What `kubectl get ARGUMENTS -o json` answers, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *documents: Mapping[str, Any]) -> str:
        """`kubectl apply` of these documents, in this order."""
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    @property
    def environment(self) -> dict[str, str]:
        """Environment for commands: KUBECONFIG, the binaries first in PATH, helm's folders apart from the user's."""
        folders = dict.fromkeys(str(path.parent) for path in self.binaries.values())
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": os.pathsep.join([*folders, os.environ["PATH"]]),
            "KUBECACHEDIR": str(self.directory / "kubectl"),
            **{f"HELM_{what}_HOME": str(self.directory / "helm") for what in ("CACHE", "CONFIG", "DATA")},
        }

    def _run(self, program: str, *arguments: str, stdin: str | None) -> str:
        done = subprocess.run(
            [self.binaries[program], *arguments],
            input=stdin or "",
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
        )
        if done.returncode != 0:
            raise KubectlError(f"{program} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    # --- processes

    def start(self, name: str, arguments: list[str]) -> None:
        """Start a program of the control plane; its log is `directory/NAME.log`."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [self.binaries[name], *arguments],
                cwd=self.directory,  # etcd and kube-apiserver meet at a relative socket
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=self._processes["etcd"].pid if self._processes else 0,
            )

    def stop_api_server(self) -> None:
        """End the API server at once: connections are reset, new ones refused. Its state stays in etcd."""
        process = self._processes["kube-apiserver"]
        process.kill()
        process.wait()

    def start_api_server(self) -> None:
        """Start the API server at the same address as before; return when it is ready."""
        self.start("kube-apiserver", self._api_server_arguments())
        self._wait("kube-apiserver", self._is_ready)

    @contextlib.contextmanager
    def without_api_server(self) -> Iterator[None]:
        """Within this context the API server is gone: connections are refused."""
        self.stop_api_server()
        try:
            yield
        finally:
            self.start_api_server()

    @contextlib.contextmanager
    def frozen_api_server(self) -> Iterator[None]:
        """Within this context the API server stands still (SIGSTOP): connections are taken and never answered."""
        process = self._processes["kube-apiserver"]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)
            self._wait("kube-apiserver", self._is_ready)

    def _start_etcd(self) -> None:
        urls = ["--listen-client-urls", "unix://localhost:0", "--advertise-client-urls", "unix://localhost:0"]
        self.start(
            "etcd", ["--data-dir", "etcd", "--unsafe-no-fsync", *urls, "--listen-peer-urls", "unix://localhost:1"]
        )
        self._reaper = _Reaper(self._processes["etcd"].pid, self.directory)

    def _start_api_server_on_a_free_port(self) -> None:
        while True:
            self._write_kubeconfigs("")
            try:
                self.start_api_server()
            except StartError as error:
                if "address already in use" not in str(error):
                    raise
                self._port = free_port()
            else:
                break
        self._write_kubeconfigs(base64.b64encode(self.ca_file.read_bytes()).decode())

    def _api_server_arguments(self) -> list[str]:
        flags = {
            "etcd-servers": "unix://localhost:0",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",
            "secure-port": str(self._port),
            "cert-dir": ".",
            "service-cluster-ip-range": "10.96.0.0/16",
            "authorization-mode": "Node,RBAC",
            "token-auth-file": "tokens.csv",
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": "service-account.key",
            "service-account-signing-key-file": "service-account.key",
            "allow-privileged": "true",
        }
        return [f"--{name}={value}" for name, value in flags.items()]

    def _controller_manager_arguments(self) -> list[str]:
        flags = {
            "kubeconfig": "controller.kubeconfig",
            "leader-elect": "false",
            "secure-port": "0",
            "kube-api-qps": "200",
            "kube-api-burst": "400",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": "service-account.key",
            "root-ca-file": self.ca_file.name,
            "horizontal-pod-autoscaler-sync-period": "1s",
        }
        return [f"--{name}={value}" for name, value in flags.items()]

    # --- credentials

    def _write_credentials(self) -> None:
        (self.directory / "service-account.key").write_bytes(signing_key())
        (self.directory / "tokens.csv").write_text(
            f'{self.token},admin,admin,"system:masters"\n'
            f"{self._controller_token},system:kube-controller-manager,controller\n"
        )

    def _write_kubeconfigs(self, authority: str) -> None:
        for path, token in (
            (self.kubeconfig, self.token),
            (self.directory / "controller.kubeconfig", self._controller_token),
        ):
            document = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {"name": "test", "cluster": {"server": self.server, "certificate-authority-data": authority}}
                ],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "current-context": "test",
            }
            path.touch(mode=0o600)
            path.write_text(yaml.safe_dump(document))

    # --- readiness

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise StartError(f"{name} exited with {process.returncode}:\n{self._log_end(name)}")
            if time.monotonic() > deadline:
                raise StartError(f"{what}: not there after {START_SECONDS:.0f} s:\n{self._log_end('kube-apiserver')}")
            time.sleep(0.05)

    def _log_end(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]

    def _is_ready(self) -> bool:
        return self._answers("/readyz")

    def _has_default_service_account(self) -> bool:
        return self._answers("/api/v1/namespaces/default/serviceaccounts/default")

    def _answers(self, path: str) -> bool:
        if not self.ca_file.exists():
            return False
        request = urllib.request.Request(self.server + path, headers={"Authorization": f"Bearer {self.token}"})
        try:
            context = create_default_context(cafile=str(self.ca_file))
            with urllib.request.urlopen(request, timeout=5, context=context):
                return True
        except OSError:
            return False
