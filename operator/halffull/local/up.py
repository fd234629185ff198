"""`halffull up FILE...`: runs ModelDeployments from files on this machine, without Kubernetes, and follows the files."""

import argparse
import asyncio
import signal
from pathlib import Path

from halffull.api import flags
from halffull.api.errors import DocumentError
from halffull.local.deployment import Deployment
from halffull.local.machine import Machine
from halffull.local.process import Say, StartError
from halffull.router.observability.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="YAML or JSON with ModelDeployments and SchedulingPolicies"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address that routers listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=flags.port,
        default=8000,
        help="port of the first router, each further one has the next; 0: free ones (default: %(default)s)",
    )
    parser.add_argument(
        "--admin-port",
        type=flags.port,
        default=9000,
        help="admin port of the first router, each further one has the next; 0: free ones (default: %(default)s)",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="record requests, without their text: DIR/NAME.jsonl per ModelDeployment",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C or SIGTERM; 0 then, 1 if something did not start, 2 if a file is wrong."""
    output = Output()

    def say(text: str) -> None:
        output.write(f"{text}\n")

    try:
        asyncio.run(_run(arguments, say))
    except DocumentError as error:
        for line in error.lines:
            say(line)
        return 2
    except (StartError, OSError) as error:
        say(str(error))
        return 1
    return 0


async def _run(arguments: argparse.Namespace, say: Say) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task  # noqa: S101 (a coroutine runs in a task)
    serving, stopping = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        """The first signal ends what serves in order; a second one, or one while things start, at once."""
        if stopping.is_set() or not serving.is_set():
            task.cancel()
        stopping.set()

    def announce(deployment: Deployment) -> None:
        spec, config = deployment.wanted.deployment.spec, deployment.config
        say(
            f"{deployment.name}: model {spec.model} at {deployment.router.url}/v1, {len(deployment.replicas)} replicas, "
            f"policy {config.scheduling.policy if config else '?'}, admin {deployment.router.admin_url}"
        )

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
            loop.add_signal_handler(number, stop)
    machine = Machine(
        arguments.files,
        host=arguments.host,
        port=arguments.port,
        admin_port=arguments.admin_port,
        say=say,
        record=arguments.record,
    )
    try:
        async with machine:
            serving.set()
            for deployment in machine.deployments.values():
                announce(deployment)
            say("following the files; Ctrl-C stops")
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(machine.follow(announce))
                await stopping.wait()
                following.cancel()
            say("stopping: open answers end first; Ctrl-C again does not wait for them")
    except asyncio.CancelledError:
        if not stopping.is_set():
            raise
