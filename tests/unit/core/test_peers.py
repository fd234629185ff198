"""The ledger of peers: what it keeps, and for how long."""

from halffull.core.books import Books, Replica
from halffull.core.page import Load, Page
from halffull.core.peers import LATER_S, SOON_S, YIELD_S, Peers

BUSY = Page(Load(1, 10, 10, 10, 0, 0), 0, 0)


def test_names_of_replicas_that_left_are_not_kept() -> None:
    books = Books()
    peers = Peers(books, lambda: None)
    for number in range(1000):
        replica = Replica(f"pod-{number}", "10.0.0.1", 8000)
        books.add(replica)
        peers.joined(replica, 0.0)
        replica.sent(10, 0.0)
        peers.changed(replica)
        peers.take()
        peers.hear("other", 3 * number, {replica.name: BUSY}, 0.0)
        replica.unsent(10)
        books.remove(replica)
        peers.changed(replica)
        assert peers.take() == {replica.name: Page()}
        peers.hear("other", 3 * number + 1, {replica.name: Page()}, 0.0)

    assert peers._told == {}
    assert peers._heard == {"other": {}}


def test_a_peer_that_says_it_has_nothing_left_is_out_of_the_sum() -> None:
    books = Books()
    peers = Peers(books, lambda: None)
    replica = Replica("pod", "10.0.0.1", 8000)
    books.add(replica)
    peers.hear("one", 1, {"pod": BUSY}, 0.0)
    peers.hear("other", 1, {"pod": BUSY}, 0.0)
    assert replica.foreign.in_flight == 2
    peers.hear("one", 2, {"pod": Page()}, 0.0)

    assert replica.foreign == BUSY.load
    peers.lose("other", 0.0)
    assert replica.foreign == Load()
    assert replica.own.load == Load()


def test_peers_hear_at_once_of_what_waits_soon_of_what_has_started_later_of_what_has_ended() -> None:
    woken: list[float] = []
    books = Books()
    peers = Peers(books, lambda: woken.append(peers.within_s))
    replica = Replica("pod", "10.0.0.1", 8000)
    books.add(replica)
    for _ in range(2):  # of two dispatches the second is no news of urgency
        replica.sent(10, 0.0)
        peers.changed(replica)
    peers.take()
    replica.started(10, 1.0)
    peers.changed(replica)
    peers.take()
    replica.ended(10, 2.0)
    peers.changed(replica)
    replica.started(10, 2.0)
    peers.changed(replica)

    assert woken == [0.0, SOON_S, LATER_S, SOON_S]


def test_peers_whose_requests_wait_hear_soon_of_what_has_ended() -> None:
    books = Books()
    peers = Peers(books, lambda: None)
    replica = Replica("pod", "10.0.0.1", 8000)
    books.add(replica)
    replica.sent(10, 0.0)
    replica.started(10, 0.0)
    peers.changed(replica)
    peers.take()
    peers.claim("other", 0.5, 1.0)
    replica.ended(10, 1.0)
    peers.changed(replica)

    assert peers.within_s == SOON_S


def test_what_is_a_peers_to_take_is_taken_by_another_only_after_a_while() -> None:
    peers = Peers(Books(), lambda: None)
    assert not peers.yields(1.0)
    peers.claim("other", 0.5, 1.0)

    assert peers.turn(0.4, 1.0)
    assert not peers.yields(1.0)
    assert not peers.turn(0.6, 1.01)
    assert not peers.turn(0.6, 1.04)  # does not put it off
    assert peers.yields(1.05)
    assert not peers.yields(1.01 + YIELD_S + 0.001)
    assert not peers.yields(1.01 + YIELD_S + 0.001)
