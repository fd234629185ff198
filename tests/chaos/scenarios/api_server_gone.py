"""F5: the API server stands still, then is gone, and the operator is killed; afterwards the next edit is applied."""

import asyncio
import json
import signal
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from chaos.crowd import Crowd, Service
from chaos.questions import MODEL, Mix, Questions
from chaos.record import Record
from chaos.stage import ENGINE, Child, LeftOutError, Stage, page, ready, until
from cluster.binaries import MissingError, find_all
from cluster.control_plane import ControlPlane
from operators import endpoint_slice, machine_address, model_deployment

ROOT = Path(__file__).parents[3]
NAMESPACE = "default"
NAME = "m"


async def play(stage: Stage, record: Record) -> None:
    """A real control plane, the operator, two routers that follow what it writes, three engines."""
    try:
        binaries = find_all()
    except MissingError as error:
        raise LeftOutError(str(error)) from error
    address = machine_address()
    if not address:
        raise LeftOutError("this machine has no address that an EndpointSlice may hold")
    async with AsyncExitStack() as stack:
        control_plane = await asyncio.to_thread(ControlPlane(binaries).__enter__)
        stack.callback(control_plane.__exit__)
        control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / "crds"))
        control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        options = ("--kubeconfig", str(control_plane.kubeconfig), "--router-image", "none", "--namespace", NAMESPACE)
        options += ("--lease", f"{NAMESPACE}/halffull-operator")
        operator = await stack.enter_async_context(stage.child("operator", *options))
        control_plane.apply(model_deployment(NAME, NAMESPACE, replicas=3))
        for number in range(3):
            engine = await stack.enter_async_context(stage.child("engine", "--model", MODEL, *ENGINE, host="0.0.0.0"))
            pod = f"engine-{number}"
            control_plane.apply(endpoint_slice(NAMESPACE, NAME, f"{NAME}-engines", pod, address, engine.port, "http"))
        routers = [await _router(stack, stage, control_plane) for _ in range(2)]
        service = Service()
        following = asyncio.create_task(service.follow(lambda: [(r.url, r.admin_url) for r in routers]))
        stack.callback(following.cancel)
        await asyncio.sleep(2 * service.lag_s)
        seconds = 5.0 if record.short else record.lengths.away_s / 2
        async with Crowd(service, Questions(17, Mix()), rate=10) as crowd:
            await crowd.answered(10)
            with control_plane.frozen_api_server():
                await crowd.seconds(seconds)
            control_plane.stop_api_server()
            operator.signal(signal.SIGKILL)
            await crowd.seconds(seconds)
            await asyncio.to_thread(control_plane.start_api_server)
            await stack.enter_async_context(stage.child("operator", *options))
            patch = json.dumps({"spec": {"scheduling": {"policy": "least-requests"}}})
            control_plane.kubectl("patch", "mdep", NAME, "--type=merge", "-p", patch)
            began = asyncio.get_running_loop().time()
            for router in routers:
                await until(router.admin_url, lambda status: status["policy"] == "least-requests", 60.0)
            applied_s = asyncio.get_running_loop().time() - began
            await crowd.answered(10)
        record.take(crowd)
        await record.read(*(router.admin_url for router in routers))
        errors = [error for router in routers for error in _errors(await page(router.admin_url))]
    record.figures |= {"awaySeconds": 2 * seconds, "nextEditAppliedSeconds": round(applied_s, 2)}
    record.nothing_failed()
    record.goal("the next edit was applied", True)  # `until` would have raised
    record.goal("the sources of the routers are well again", not errors)


async def _router(stack: AsyncExitStack, stage: Stage, control_plane: ControlPlane) -> Child:
    """A router that follows what the operator writes, with the state directory that its pod would have."""
    state = tempfile.mkdtemp(dir=stage.folder)
    options = ("--namespace", NAMESPACE, "--config-map", f"{NAME}-router", "--state-dir", state)
    router = await stack.enter_async_context(
        stage.child("router", *options, "--kubeconfig", str(control_plane.kubeconfig))
    )
    await until(router.admin_url, lambda status: ready(status, 3))
    return router


def _errors(status: Any) -> list[str]:
    return [source["error"] for source in status["sources"].values() if source["error"]]
