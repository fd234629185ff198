"""Several routers that tell each other of their books, over links that delay, repeat, overtake and break."""

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from halffull.core.books import Replica, prefill_work
from halffull.core.dispatch import Dispatcher
from halffull.core.errors import Failure, Reason
from halffull.core.exchange import Exchange, Phase
from halffull.core.faults import Fault
from halffull.core.gate import GATES, LimitParameters
from halffull.core.health import Verdict
from halffull.core.limits import Limits
from halffull.core.page import Load, Page
from halffull.core.peers import Peers
from halffull.core.values import Request, State
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES

ROUTERS, REPLICAS = 3, 2
LIMITS = Limits(queue_requests=8, queue_timeout_s=30.0, attempts=3)
BROKEN = Failure(Reason.ENGINE_BROKEN, "broken")
PAIRS = [(one, other) for one in range(ROUTERS) for other in range(ROUTERS) if one != other]
Telling = tuple[int, dict[str, Page], float | None, bool]


@dataclass
class Node:
    """A router: its dispatcher, what it still has to deliver to each other one, and what each other one told it last."""

    dispatcher: Dispatcher
    name: str
    peers: Peers
    number: int = 0
    links: dict[int, list[Telling]] = field(default_factory=dict)
    accepted: dict[int, dict[str, Page]] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    ended: dict[Exchange, Phase] = field(default_factory=dict)


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.serial = 0
        self.nodes: list[Node] = []

    @initialize(policy=st.sampled_from(["sal", "least-requests", "random"]))
    def begin(self, policy: str) -> None:
        self.policy = policy
        self.nodes = [self.router(number, f"router-{number}") for number in range(ROUTERS)]
        for one, other in PAIRS:
            self.connect(one, other)

    def router(self, number: int, name: str) -> Node:
        gate = GATES["limit"].make(LimitParameters(4))
        policy, ordering = POLICIES[self.policy].make(), ORDERINGS["fcfs"].make()
        dispatcher = Dispatcher(policy, ordering, gate, random.Random(number), LIMITS)
        node = Node(dispatcher, name, Peers(dispatcher.books, lambda: None))
        dispatcher.peers = node.peers
        for replica in range(REPLICAS):
            dispatcher.add(Replica(f"r{replica}", "127.0.0.1", 8000), self.now)
        return node

    def connect(self, sender: int, receiver: int) -> None:
        node = self.nodes[sender]
        node.number += 1
        node.links[receiver] = [(node.number, node.peers.all(), None, True)]

    def pair(self, data: Any) -> tuple[int, int]:
        one = data.draw(st.integers(0, ROUTERS - 1))
        return one, data.draw(st.sampled_from([n for n in range(ROUTERS) if n != one]))

    def any_node(self, data: Any) -> Node:
        return self.nodes[data.draw(st.integers(0, ROUTERS - 1))]

    def pick(self, data: Any, *phases: Phase) -> tuple[Node, Exchange] | None:
        chosen = [(node, e) for node in self.nodes for e in node.exchanges if e.phase in phases]
        return data.draw(st.sampled_from(chosen)) if chosen else None

    # --- requests

    @rule(data=st.data(), tokens=st.integers(1, 5000), stream=st.booleans())
    def arrive(self, data: Any, tokens: int, stream: bool) -> None:
        node = self.any_node(data)
        self.serial += 1
        request = Request(str(self.serial), self.now, tokens, stream=stream)
        node.exchanges.append(node.dispatcher.arrive(request, self.now))

    @rule(data=st.data())
    def send(self, data: Any) -> None:
        if found := self.pick(data, Phase.CONNECTING):
            found[0].dispatcher.sent(found[1], self.now)

    @rule(data=st.data())
    def start(self, data: Any) -> None:
        if found := self.pick(data, Phase.CONNECTING, Phase.WAITING):
            self.begin_answer(*found)

    def begin_answer(self, node: Node, exchange: Exchange) -> None:
        if exchange.phase is Phase.CONNECTING:
            node.dispatcher.sent(exchange, self.now)
        node.dispatcher.started(exchange, self.now)
        node.dispatcher.progressed(exchange, 1)

    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        if found := self.pick(data, Phase.STREAMING):
            self.carry_out(found[0], found[0].dispatcher.finished(found[1], self.now))
            assert found[1].phase is Phase.DONE

    def carry_out(self, node: Node, given: list[Exchange]) -> None:
        """What a dispatcher gives its host is to be sent or to be answered with an error, each once."""
        assert len(given) == len(set(given) & set(node.exchanges))
        for exchange in given:
            assert exchange.phase in {Phase.CONNECTING, Phase.FAILED}
            assert (exchange.failure is not None) == (exchange.phase is Phase.FAILED)

    @rule(data=st.data(), tokens=st.integers(0, 600))
    def progress(self, data: Any, tokens: int) -> None:
        if found := self.pick(data, Phase.STREAMING):
            found[0].dispatcher.progressed(found[1], tokens)

    @rule(data=st.data())
    def end(self, data: Any) -> None:
        if found := self.pick(data, Phase.QUEUED, Phase.CONNECTING, Phase.WAITING, Phase.STREAMING):
            self.carry_out(found[0], found[0].dispatcher.cancel(found[1], self.now))

    @rule(data=st.data(), fault=st.sampled_from(Fault))
    def move(self, data: Any, fault: Fault) -> None:
        """Refused or broken off before it started, or afterwards: its stream goes on elsewhere."""
        if found := self.pick(data, Phase.CONNECTING, Phase.WAITING, Phase.STREAMING):
            self.carry_out(found[0], found[0].dispatcher.not_started(found[1], BROKEN, fault, self.now))
            assert found[1].replica is None or found[1].phase is Phase.CONNECTING

    @rule(data=st.data())
    def break_off(self, data: Any) -> None:
        if found := self.pick(data, Phase.STREAMING):
            self.carry_out(found[0], found[0].dispatcher.broken(found[1], BROKEN, self.now, Fault.LOST))
            assert found[1].phase is Phase.FAILED

    @rule(data=st.data(), resumed=st.booleans())
    def replica_dies(self, data: Any, resumed: bool) -> None:
        """One router finds a replica dead: all that it holds there moves, or ends."""
        node = self.any_node(data)
        dispatcher = node.dispatcher
        dead = dispatcher.books.replicas[data.draw(st.sampled_from([f"r{n}" for n in range(REPLICAS)]))]
        dispatcher.judged(dead, self.now, alive=False, why="it died")
        for exchange in [e for e in node.exchanges if e.replica is dead]:
            if exchange.phase is Phase.STREAMING and not resumed:
                self.carry_out(node, dispatcher.broken(exchange, BROKEN, self.now, Fault.SILENT))
            else:
                self.carry_out(node, dispatcher.not_started(exchange, BROKEN, Fault.SILENT, self.now))
            assert exchange.replica is not dead
        assert dead.own.load == Load()

    @rule(data=st.data())
    def replica_is_back(self, data: Any) -> None:
        node = self.any_node(data)
        for replica in node.dispatcher.books.replicas.values():
            if replica.health.verdict is Verdict.OUT:
                node.dispatcher.judged(replica, self.now, alive=True, why="it is back")
        self.carry_out(node, node.dispatcher.release(self.now))

    @rule(data=st.data(), state=st.sampled_from(State))
    def discovery_tells(self, data: Any, state: State) -> None:
        """A replica drains, is down, or is ready again, for one router before the others."""
        node = self.any_node(data)
        replica = node.dispatcher.books.replicas[data.draw(st.sampled_from([f"r{n}" for n in range(REPLICAS)]))]
        replica.state = state
        node.dispatcher.refresh(replica, self.now)
        self.carry_out(node, node.dispatcher.release(self.now))

    @rule(data=st.data(), policy=st.sampled_from(list(POLICIES)), gate=st.sampled_from(list(GATES)),
          ordering=st.sampled_from(list(ORDERINGS)))  # fmt: skip
    def swap(self, data: Any, policy: str, gate: str, ordering: str) -> None:
        """A router swaps its scheduler: nobody leaves its queue."""
        node = self.any_node(data)
        dispatcher, waiting = node.dispatcher, len(node.dispatcher.queue)
        dispatcher.configure(POLICIES[policy].make(), ORDERINGS[ordering].make(), GATES[gate].make(), LIMITS, self.now)
        assert len(dispatcher.queue) == waiting
        self.carry_out(node, dispatcher.release(self.now))

    @rule(data=st.data())
    def router_dies(self, data: Any) -> None:
        """A router is killed with all it had; its successor, of another name, knows nothing, and nobody of it."""
        number = data.draw(st.integers(0, ROUTERS - 1))
        before = self.nodes[number]
        self.serial += 1
        self.nodes[number] = self.router(number, f"{before.name.partition('.')[0]}.{self.serial}")
        for other, node in enumerate(self.nodes):
            if node is not self.nodes[number]:
                node.links.pop(number, None)
                node.accepted.pop(number, None)
                self.carry_out(node, node.dispatcher.heard(node.peers.lose(before.name, self.now), self.now))
                self.connect(number, other)
                self.connect(other, number)

    @rule(seconds=st.floats(0.01, 1.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for node in self.nodes:
            node.peers.look()
            self.carry_out(node, node.dispatcher.tick(self.now))
            node.dispatcher.transitions.clear()

    @rule(data=st.data())
    def replace_replica(self, data: Any) -> None:
        """The same name at another address: the old page goes with what still runs there."""
        node = self.any_node(data)
        name = data.draw(st.sampled_from([f"r{n}" for n in range(REPLICAS)]))
        node.dispatcher.remove(node.dispatcher.books.replicas[name])
        node.dispatcher.add(Replica(name, "127.0.0.1", 8001), self.now)

    # --- links

    @rule(data=st.data())
    def tell(self, data: Any) -> None:
        self.flush(self.any_node(data))

    def flush(self, node: Node) -> None:
        node.number += 1
        oldest = node.dispatcher.queue.oldest
        pages = node.peers.take()
        for link in node.links.values():
            link.append((node.number, pages, None if oldest is None else self.now - oldest, False))

    def mend_links(self) -> None:
        for sender, receiver in PAIRS:
            if receiver not in self.nodes[sender].links:
                self.connect(sender, receiver)

    def tell_all(self) -> None:
        for node in self.nodes:
            self.flush(node)
        for sender, receiver in PAIRS:
            while self.nodes[sender].links[receiver]:
                self.deliver_next(sender, receiver)

    @rule(data=st.data())
    def deliver(self, data: Any) -> None:
        sender, receiver = self.pair(data)
        self.deliver_next(sender, receiver)

    def deliver_next(self, sender: int, receiver: int) -> None:
        waiting = self.nodes[sender].links.get(receiver)
        if waiting:
            self.hear(sender, receiver, waiting.pop(0), fresh=True)

    @rule(data=st.data(), number=st.integers(0, 3))
    def deliver_again(self, data: Any, number: int) -> None:
        """What was overtaken, or came before, changes nothing."""
        sender, receiver = self.pair(data)
        if self.nodes[receiver].accepted.get(sender) is not None:
            wrong = {"r0": Page(Load(99, 99, 99, 99, 99, 99))}
            self.hear(sender, receiver, (self.heard(sender, receiver) - number, wrong, None, bool(number)), fresh=False)

    def heard(self, sender: int, receiver: int) -> int:
        return self.nodes[receiver].peers._numbers[self.nodes[sender].name]

    def hear(self, sender: int, receiver: int, telling: Telling, *, fresh: bool) -> None:
        number, pages, waits_s, every = telling
        node, name = self.nodes[receiver], self.nodes[sender].name
        changed = node.peers.hear(name, number, pages, self.now, every=every)
        if fresh:
            node.peers.claim(name, waits_s, self.now)
            known = {} if every else node.accepted.get(sender, {})
            node.accepted[sender] = known | pages
        else:
            assert changed == []
        self.carry_out(node, node.dispatcher.heard(changed, self.now))

    @rule(data=st.data())
    def break_link(self, data: Any) -> None:
        """The receiver takes the sender for lost; what was under way is gone."""
        sender, receiver = self.pair(data)
        if self.nodes[sender].links.pop(receiver, None) is not None:
            self.nodes[receiver].dispatcher.heard(
                self.nodes[receiver].peers.lose(self.nodes[sender].name, self.now), self.now
            )
            self.nodes[receiver].accepted.pop(sender, None)

    @rule(data=st.data())
    def mend_link(self, data: Any) -> None:
        sender, receiver = self.pair(data)
        if receiver not in self.nodes[sender].links:
            self.connect(sender, receiver)

    @precondition(lambda self: self.nodes)
    @rule()
    def all_quiet(self) -> None:
        """Everything told and heard: every router's books are the sum of what all have."""
        self.mend_links()
        for _ in range(100):  # what is heard may release requests, which is told in turn
            self.tell_all()
            if not any(node.peers.within_s < float("inf") for node in self.nodes):
                break
        for node in self.nodes:
            for replica in node.dispatcher.books.replicas.values():
                node.peers.changed(replica)  # small steps of tokens
        self.tell_all()
        assert not any(node.peers.within_s < float("inf") for node in self.nodes)
        for number in range(REPLICAS):
            seen = [total(node.dispatcher.books.replicas[f"r{number}"]) for node in self.nodes]
            own = [exact(node, node.dispatcher.books.replicas[f"r{number}"]) for node in self.nodes]
            assert seen == [Load(*map(sum, zip(*own, strict=True)))] * ROUTERS

    @rule()
    def everything_ends(self) -> None:
        """Engines answer, time passes, routers talk: every request comes to an end, and nothing is left in the books."""
        self.mend_links()
        for _ in range(400):
            if all(e.phase.ended for node in self.nodes for e in node.exchanges):
                break
            for node in self.nodes:
                for exchange in list(node.exchanges):
                    if exchange.phase in (Phase.CONNECTING, Phase.WAITING):
                        self.begin_answer(node, exchange)
                    if exchange.phase is Phase.STREAMING:
                        self.carry_out(node, node.dispatcher.finished(exchange, self.now))
                for replica in node.dispatcher.books.replicas.values():
                    replica.state = State.READY
                    if replica.health.verdict in {Verdict.OUT, Verdict.SUSPECT}:
                        node.dispatcher.judged(replica, self.now, alive=True, why="it is back")
            self.tell_all()
            self.pass_time(0.5)
        for node in self.nodes:
            assert all(e.phase.ended for e in node.exchanges), "a request is lost"
            assert len(node.dispatcher.queue) == 0
            assert all(replica.own.load == Load() for replica in node.dispatcher.books.replicas.values())

    # --- what always holds

    @invariant()
    def nobody_is_lost_or_answered_twice(self) -> None:
        for node in self.nodes:
            queued = [e for e in node.exchanges if e.phase is Phase.QUEUED]
            assert len(node.dispatcher.queue) == len(queued)
            for exchange in node.exchanges:
                held = exchange.phase in (Phase.CONNECTING, Phase.WAITING, Phase.STREAMING)
                assert held == (exchange.replica is not None)
                if exchange.phase.ended:
                    assert node.ended.setdefault(exchange, exchange.phase) is exchange.phase
                else:
                    assert exchange not in node.ended

    @invariant()
    def nothing_is_negative(self) -> None:
        for node in self.nodes:
            for replica in node.dispatcher.books.replicas.values():
                assert min(replica.own.load) >= 0
                assert min(replica.foreign) >= 0
                assert replica.streams >= 0
            assert node.dispatcher.queue.bytes >= 0

    @invariant()
    def own_books_are_exact(self) -> None:
        for node in self.nodes:
            for replica in node.dispatcher.books.replicas.values():
                assert replica.own.load == exact(node, replica)

    @invariant()
    def foreign_is_what_was_heard_last(self) -> None:
        for node in self.nodes:
            for name, replica in node.dispatcher.books.replicas.items():
                pages = [told[name].load for told in node.accepted.values() if name in told]
                assert replica.foreign == Load(*map(sum, zip(Load(), *pages, strict=True)))

    @invariant()
    def candidates_are_open(self) -> None:
        for node in self.nodes:
            for replica in node.dispatcher.candidates:
                assert node.dispatcher.gate.open(replica)


def exact(node: Node, replica: Replica) -> Load:
    held = [e for e in node.exchanges if e.replica is replica]
    begun = [e for e in held if e.phase is Phase.STREAMING or e.presumed]
    prompts = [e.request.prompt_tokens for e in held if e not in begun]
    return Load(
        len(held),
        sum(prompts),
        sum(map(prefill_work, prompts)),
        sum(prompts),
        len(begun),
        sum(e.request.prompt_tokens + e.tokens for e in begun),
    )


def total(replica: Replica) -> Load:
    return Load(*map(sum, zip(replica.own.load, replica.foreign, strict=True)))


Fleet.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestTelling = Fleet.TestCase
