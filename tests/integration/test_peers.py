"""Several router processes share their books: each sees the load of all; one that dies or stops does not disturb the others."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from halffull.router.peers.link import VERSION, Hello, framed
from processes import Running, running
from routers import address, admin, ready_replicas, status, write_config

ENGINES = 4


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Running]]:
    """Engines that take minutes for a long answer."""
    folder = tmp_path_factory.mktemp("engines")
    with ExitStack() as stack:
        yield [
            stack.enter_context(running(folder / str(n), "engine", "--model", "m", "--speedup", "0.5"))
            for n in range(ENGINES)
        ]


@contextmanager
def fleet(folder: Path, engines: list[Running], count: int, **scheduling: Any) -> Iterator[list[Running]]:
    """Routers that all know of each other."""
    config, token = folder / "config.json", folder / "token"
    write_config(config, [address(engine) for engine in engines], scheduling={"policy": "least-requests", **scheduling})
    token.write_text("a secret\n")
    ports = free_ports(count)
    with ExitStack() as stack:
        routers = []
        for number, port in enumerate(ports):
            others = ",".join(f"127.0.0.1:{other}" for other in ports)
            options = ["--config", str(config), "--peer-port", str(port), "--peers", others]
            options += ["--peer-token-file", str(token)]
            routers.append(stack.enter_context(running(folder / f"router{number}", "router", *options)))
        until(lambda: all(ready_replicas(router) == len(engines) for router in routers))
        until(lambda: all(connected(router) == count - 1 for router in routers))
        yield routers


def connected(router: Running) -> int:
    return len(status(router)["peers"]["connected"])


def seen(router: Running) -> list[int]:
    """Requests of the whole fleet that a router knows at each replica."""
    return [page["inFlight"] + page["peersInFlight"] for page in status(router)["replicas"]]


class Stream:
    """A long answer that is being read; the request is over when it is closed."""

    def __init__(self, router: Running, tokens: int = 4000) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens, "stream": True}
        body["ignore_eos"] = True
        request = urllib.request.Request(
            router.url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        self.answer = urllib.request.urlopen(request, timeout=60)
        self.replica = self.answer.headers["x-halffull-replica"]

    def close(self) -> None:
        self.answer.close()


def test_each_router_sees_the_load_of_all(tmp_path: Path, engines: list[Running]) -> None:
    with fleet(tmp_path, engines, 4) as routers:
        streams = []
        for turn in range(8):
            before = [sum(seen(router)) for router in routers]
            assert before == [turn] * 4
            streams.append(Stream(routers[turn % 4]))
            until(lambda expected=turn + 1: all(sum(seen(router)) == expected for router in routers))
        # least-requests spreads them evenly only where every router counts the requests of all
        assert all(seen(router) == [2, 2, 2, 2] for router in routers)
        assert [sum(page["inFlight"] for page in status(router)["replicas"]) for router in routers] == [2] * 4

        for stream in streams:
            stream.close()
        until(lambda: all(seen(router) == [0, 0, 0, 0] for router in routers))


def test_each_replica_is_one_routers_to_fill_first(tmp_path: Path, engines: list[Running]) -> None:
    def deferred() -> list[list[bool]]:
        return [[page["deferenceSeconds"] > 0 for page in status(router)["replicas"]] for router in routers]

    with fleet(tmp_path, engines, 3, policy="sal") as routers:
        until(lambda: all(sum(of_replica) == 2 for of_replica in zip(*deferred(), strict=True)))
        until(lambda: sorted(row.count(False) for row in deferred()) == [1, 1, 2])


def test_tokens_of_answers_under_way_are_told(tmp_path: Path, engines: list[Running]) -> None:
    with fleet(tmp_path, engines, 2) as (one, other):
        stream = Stream(one)
        until(lambda: max(page["peersDecodeTokens"] for page in status(other)["replicas"]) >= 256)
        stream.close()


def test_the_load_of_a_router_that_dies_disappears(tmp_path: Path, engines: list[Running]) -> None:
    with ExitStack() as stack:
        stack.enter_context(
            pytest.raises(AssertionError, match="halffull router:")
        )  # the router that dies does not end with status 0
        one, other, dying = stack.enter_context(fleet(tmp_path, engines, 3))
        streams = [Stream(dying) for _ in range(4)]
        until(lambda: seen(one) == seen(other) == [1, 1, 1, 1])
        os.kill(dying.process.pid, signal.SIGKILL)
        until(lambda: seen(one) == seen(other) == [0, 0, 0, 0])
        assert connected(one) == 1
        del streams
        assert dying.process.wait(30) == -signal.SIGKILL


def test_a_router_that_stops_does_not_hold_up_the_others(tmp_path: Path, engines: list[Running]) -> None:
    with fleet(tmp_path, engines, 3) as (one, other, stopped):
        held = Stream(stopped)
        until(lambda: sum(seen(one)) == 1)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        try:
            ended = threading.Event()

            def work() -> None:
                while not ended.is_set():
                    Stream(one, tokens=1).close()

            worker = threading.Thread(target=work)
            worker.start()
            until(lambda: connected(one) == connected(other) == 1)
            until(lambda: sum(seen(other)) <= 1)
            ended.set()
            worker.join(60)
            until(lambda: sum(seen(one)) == sum(seen(other)) == 0)  # what it told has expired
        finally:
            os.kill(stopped.process.pid, signal.SIGCONT)
        until(lambda: all(connected(router) == 2 for router in (one, other, stopped)))
        until(lambda: sum(seen(one)) == sum(seen(other)) == 1)
        held.close()


def test_a_gate_counts_the_requests_of_all(tmp_path: Path, engines: list[Running]) -> None:
    """Eight requests at two routers, room for four: four wait, and each end lets one of them go."""
    limit = {"gate": "limit", "parameters": {"limit": {"maxInFlight": 1}}}
    with fleet(tmp_path, engines, 2, **limit) as routers:
        running_, waiting = [], []
        for turn in range(4):
            running_.append(Stream(routers[0]))
            until(lambda expected=turn + 1: all(sum(seen(router)) == expected for router in routers))

        def ask(router: Running) -> None:
            stream = Stream(router)
            waiting.append(stream)

        threads = [threading.Thread(target=ask, args=(router,)) for router in routers for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: all(status(router)["queue"]["requests"] == 2 for router in routers))
        for turn, stream in enumerate(running_):
            stream.close()
            until(lambda expected=turn + 1: len(waiting) == expected)
            assert all(sum(seen(router)) <= 4 for router in routers)
        for thread in threads:
            thread.join(60)
        until(lambda: all(seen(router) == [1, 1, 1, 1] for router in routers))
        for stream in waiting:
            stream.close()


@pytest.mark.parametrize("count", [1, 4])
def test_engines_are_asked_once_per_interval_however_many_routers_there_are(
    tmp_path: Path, engines: list[Running], count: int
) -> None:
    with fleet(tmp_path, engines, count, signals={"intervalSeconds": 0.5}) as routers:
        until(lambda: all(p["signals"]["state"] == "fresh" for r in routers for p in status(r)["replicas"]))
        before, began = scrapes(routers), time.monotonic()
        until(lambda: scrapes(routers) - before >= 40)
        seconds = time.monotonic() - began
        assert (scrapes(routers) - before) / ENGINES * 0.5 / seconds < 1.6  # one per interval; four would be 4
        assert all(p["signals"]["state"] == "fresh" for r in routers for p in status(r)["replicas"])


def scrapes(routers: list[Running]) -> int:
    lines = [line for router in routers for line in admin(router, "/metrics").splitlines()]
    return round(sum(float(line.split()[1]) for line in lines if line.startswith("halffull_router_scrapes_total ")))


def test_a_peer_without_the_secret_is_refused(tmp_path: Path, engines: list[Running]) -> None:
    with fleet(tmp_path, engines, 2) as routers:
        arguments = Path(f"/proc/{routers[0].process.pid}/cmdline").read_bytes().decode().split("\0")
        peers = arguments[arguments.index("--peers") + 1]
        wrong = tmp_path / "wrong"
        wrong.write_text("another secret")
        options = ["--config", str(tmp_path / "config.json"), "--peers", peers, "--peer-token-file", str(wrong)]
        with running(tmp_path / "stranger", "router", *options) as stranger:
            until(lambda: "does not know the token" in (tmp_path / "stranger" / "log").read_text())
            until(lambda: "does not know the token" in (tmp_path / "router0" / "log").read_text())
            assert connected(stranger) == 0
            assert [connected(router) for router in routers] == [1, 1]


def peer_ports(router: Running) -> list[int]:
    """Ports of all routers of its fleet, its own first."""
    words = Path(f"/proc/{router.process.pid}/cmdline").read_bytes().decode().split("\0")
    own, others = words[words.index("--peer-port") + 1], words[words.index("--peers") + 1]
    return sorted({int(part.rpartition(":")[2]) for part in others.split(",")}, key=lambda port: port != int(own))


def test_a_router_at_the_address_of_a_dead_one_is_another(tmp_path: Path, engines: list[Running]) -> None:
    """A pod that is restarted in place: same address, and none of what its predecessor had counts."""
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(AssertionError, match="halffull router:"))  # the one that is killed
        one, other, dying = stack.enter_context(fleet(tmp_path, engines, 3))
        options = Path(f"/proc/{dying.process.pid}/cmdline").read_bytes().decode().split("\0")[4:-1]
        options = options[options.index("--config") :]
        before = {peer["router"] for peer in status(one)["peers"]["connected"]}
        held = [Stream(dying) for _ in range(2)]
        until(lambda: sum(seen(one)) == sum(seen(other)) == 2)
        os.kill(dying.process.pid, signal.SIGKILL)
        with running(tmp_path / "again", "router", *options) as again:
            until(lambda: connected(one) == connected(other) == connected(again) == 2)
            until(lambda: sum(seen(one)) == sum(seen(other)) == sum(seen(again)) == 0)
            assert len({peer["router"] for peer in status(one)["peers"]["connected"]} - before) == 1
            stream = Stream(again)
            until(lambda: sum(seen(one)) == sum(seen(other)) == 1)
            stream.close()
        del held
        dying.process.wait(30)


def test_a_new_secret_counts_from_the_next_handshake_on(tmp_path: Path, engines: list[Running]) -> None:
    with fleet(tmp_path, engines, 2) as routers:
        others = ",".join(f"127.0.0.1:{port}" for port in peer_ports(routers[0]))
        fresh = tmp_path / "fresh"
        fresh.write_text("a new secret")
        options = ["--config", str(tmp_path / "config.json"), "--peers", others, "--peer-token-file", str(fresh)]
        with running(tmp_path / "new", "router", *options) as new:
            until(lambda: "does not know the token" in (tmp_path / "new" / "log").read_text())
            (tmp_path / "token").write_text("a new secret")
            until(lambda: connected(new) == 2)
            assert [connected(router) for router in routers] == [2, 2]


def test_a_router_of_another_version_is_left_alone(tmp_path: Path, engines: list[Running]) -> None:
    with fleet(tmp_path, engines, 2) as routers:
        with socket.create_connection(("127.0.0.1", peer_ports(routers[0])[0])) as later:
            later.sendall(framed(Hello(VERSION + 1, "later", bytes(16))))
            later.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                while later.recv(4096):
                    pass
        log = tmp_path / "router0" / "log"
        until(lambda: f"it speaks version {VERSION + 1}, not {VERSION}" in log.read_text())
        assert [connected(router) for router in routers] == [1, 1]


def test_strangers_that_say_nothing_take_no_more_than_their_share(tmp_path: Path, engines: list[Running]) -> None:
    with fleet(tmp_path, engines, 2) as routers, ExitStack() as stack:
        arguments = Path(f"/proc/{routers[0].process.pid}/cmdline").read_bytes().decode().split("\0")
        port = int(arguments[arguments.index("--peer-port") + 1])
        strangers = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(160)]
        for stranger in strangers:
            stranger.setblocking(False)
        ended: set[int] = set()

        def look() -> bool:
            for number, stranger in enumerate(strangers):
                try:
                    if number not in ended and stranger.recv(4096) == b"":
                        ended.add(number)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    ended.add(number)
            return len(ended) >= 32

        until(look)
        assert ended >= set(range(32)), "the oldest end first"
        assert [connected(router) for router in routers] == [1, 1]


def test_workers_of_one_pod_are_peers(tmp_path: Path, engines: list[Running]) -> None:
    config = tmp_path / "config.json"
    write_config(config, [address(engine) for engine in engines], scheduling={"policy": "least-requests"})
    with running(tmp_path / "router", "router", "--config", str(config), "--workers", "3") as router:
        until(lambda: ready_replicas(router) == ENGINES)
        until(lambda: "peers_connected 6.0" in admin(router, "/metrics"))  # each of three has two
        streams = []
        for turn in range(8):
            streams.append(Stream(router))
            until(lambda expected=turn + 1: sum(p["inFlight"] for p in status(router)["replicas"]) == expected)
        assert [page["inFlight"] for page in status(router)["replicas"]] == [2, 2, 2, 2]
        for stream in streams:
            stream.close()
