"""What the end-to-end tests do with a cluster that runs pods; used by conftest and by every test here."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

RELEASE_NAMESPACE = "halffull-e2e-operator"
NAMESPACE = "halffull-e2e"
CHILDREN = "deploy,rs,pod,svc,endpointslice,cm,secret,sa,role,rolebinding,pdb,mdep,spol"
GIVEN = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
"""what every namespace holds"""
CONDITIONS = {"Ready", "EnginesReady", "RouterReady", "PolicyApplied"}
FIRST = 25
"""requests before a load counts as running"""


class CommandError(RuntimeError):
    """kubectl or helm failed; the message is what it printed."""


class Cluster:
    """kubectl and helm on the cluster of $KUBECONFIG."""

    def __init__(self, programs: Mapping[str, Path]) -> None:
        self._programs = programs

    def program(self, name: str) -> str:
        """The path of kubectl or helm."""
        return str(self._programs[name])

    def run(self, program: str, *arguments: str, stdin: str = "") -> str:
        command = [self._programs[program], *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CommandError(f"{program} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return self.run("kubectl", *arguments, stdin=stdin)

    def helm(self, *arguments: str) -> str:
        return self.run("helm", *arguments)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("-n", NAMESPACE, "get", *arguments, "-o", "json"))

    def pods(self, name: str, component: str) -> list[str]:
        """Names of the pods of a ModelDeployment that are not terminating."""
        selector = f"halffull.dev/model-deployment={name},app.kubernetes.io/component={component}"
        items = self.get("pods", "-l", selector)["items"]
        return sorted(item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"])

    def objects(self) -> set[str]:
        """What is in the namespace, besides what every namespace holds and what the chart put there."""
        not_the_charts = "app.kubernetes.io/managed-by!=Helm"
        listed = self.kubectl("-n", NAMESPACE, "get", CHILDREN, "-l", not_the_charts, "-o", "name").split()
        return {name.replace(".apps/", "/").replace(".k8s.io", "") for name in listed} - GIVEN

    def row(self, name: str) -> dict[str, str]:
        """The columns of `kubectl get mdep NAME`."""
        head, line = self.kubectl("-n", NAMESPACE, "get", "mdep", name).splitlines()
        starts = [head.index(column) for column in head.split()]
        ends = [*starts[1:], None]
        return {column: line[start:end].strip() for column, start, end in zip(head.split(), starts, ends, strict=True)}

    def status(self, name: str) -> dict[str, Any]:
        """The status of a ModelDeployment."""
        return dict(self.get("mdep", name).get("status", {}))

    def conditions(self, name: str) -> dict[str, str]:
        """Status of each condition of a ModelDeployment, of those that speak of its present generation."""
        document = self.get("mdep", name)
        return {
            condition["type"]: condition["status"]
            for condition in document.get("status", {}).get("conditions", [])
            if condition["observedGeneration"] == document["metadata"]["generation"]
        }

    def is_well(self, name: str) -> bool:
        """Whether all conditions of a ModelDeployment are True."""
        found = self.conditions(name)
        return found.keys() >= CONDITIONS and set(found.values()) == {"True"}

    def replica_states(self, name: str) -> dict[str, str]:
        """State of each replica, as the status of a ModelDeployment says."""
        return {replica["name"]: replica["state"] for replica in self.status(name).get("replicas", [])}

    def in_flight(self, name: str, replica: str) -> int:
        """Requests that the routers of a ModelDeployment have at a replica, now."""
        rows = [row for answer in self.router_pages(name) for row in answer["replicas"]]
        return sum(row["inFlight"] for row in rows if row["name"] == replica)

    def peers(self, name: str) -> list[int]:
        """With how many others each router of a ModelDeployment shares its books."""
        return [len(answer["peers"]["connected"]) for answer in self.router_pages(name)]

    def received(self, name: str) -> int:
        """Requests that the routers which a status lists have got; they may be sidecars."""
        pods = [router["name"] for router in self.status(name)["routers"]]
        return sum(self.page(pod)["requests"]["received"] for pod in pods)

    def router_pages(self, name: str) -> list[Any]:
        """`/status` of each router of a ModelDeployment."""
        return [self.page(pod) for pod in self.pods(name, "router")]

    def page(self, pod: str) -> Any:
        """`/status` of the router in a pod."""
        return json.loads(self.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8101/proxy/status"))

    def set_policy(self, name: str, policy: str) -> float:
        """Edit the policy; return after how many seconds all routers had applied it."""
        patch = {"spec": {"scheduling": {"policy": policy}}}
        self.kubectl("patch", "-n", NAMESPACE, "mdep", name, "--type=merge", "-p", json.dumps(patch))
        return self.wait("the policy is applied", lambda: self.conditions(name).get("PolicyApplied") == "True")

    def wait(self, what: str, condition: Callable[[], object], seconds: float = 120.0) -> float:
        """Wait until the condition holds; return how long that took (seconds)."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < seconds, f"{what}: still not so after {seconds:.0f} s\n{self.state()}"
            time.sleep(0.2)
        return time.monotonic() - start

    @staticmethod
    def timed(action: Callable[[], object]) -> float:
        """Do it; return how long that took (seconds)."""
        start = time.monotonic()
        action()
        return time.monotonic() - start

    def state(self) -> str:
        """What a person would look at when something is wrong."""
        commands = (
            ("-n", NAMESPACE, "get", "mdep,pods", "-o", "wide"),
            ("-n", NAMESPACE, "get", "mdep", "-o", "jsonpath={range .items[*]}{.status}{end}"),
            ("-n", NAMESPACE, "get", "events", "--sort-by=.metadata.creationTimestamp"),
            ("-n", RELEASE_NAMESPACE, "get", "pods", "-o", "wide"),
            ("-n", RELEASE_NAMESPACE, "logs", "-l", "app.kubernetes.io/component=operator", "--tail=30"),
            ("-n", NAMESPACE, "logs", "-l", "app.kubernetes.io/component=router", "--tail=20"),
        )
        texts = []
        for command in commands:
            try:
                texts.append(self.kubectl(*command))
            except CommandError as error:
                texts.append(str(error))
        return "\n".join(texts)


class Load:
    """`halffull load` in a pod of the cluster, from when its first requests have come until it is told to stop."""

    def __init__(self, cluster: Cluster, name: str, image: str, target: str, *arguments: str) -> None:
        """Send to a ModelDeployment, `target`; return when routers have got FIRST requests."""
        self._cluster = cluster
        self._name = name
        before = cluster.received(target)
        security = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        container = {
            "name": "load",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["load", "--url", f"http://{target}.{NAMESPACE}", *arguments, "--json", "/dev/stdout"],
            "securityContext": security,
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [container],
            },
        }
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod))
        cluster.wait("requests come", lambda: cluster.received(target) >= before + FIRST)

    def phase(self) -> str:
        return str(self._cluster.get("pod", self._name)["status"]["phase"])

    def all_answered(self) -> dict[str, Any]:
        """End the sending, wait for the last answers; return its figures. Fails unless every request was answered in full."""
        stop = ("python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
        self._cluster.kubectl("-n", NAMESPACE, "exec", self._name, "--", *stop)
        self._cluster.wait("load ended", lambda: self.phase() in {"Succeeded", "Failed"})
        output = self._cluster.kubectl("-n", NAMESPACE, "logs", self._name)
        self._cluster.kubectl("-n", NAMESPACE, "delete", "pod", self._name)
        assert "\n{" in output, output
        figures, _ = json.JSONDecoder().raw_decode(output, output.index("\n{") + 1)
        requests = figures["requests"]
        whole = requests["failed"] == {} and requests["shorterThanAsked"] == 0
        assert whole, f"{figures}\n{self._cluster.state()}"
        assert requests["completed"] == requests["sent"] >= FIRST, figures
        return dict(figures)
