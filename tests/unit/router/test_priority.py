"""What becomes of the field `priority` of requests."""

import json
import random

import pytest

from halffull.core.dispatch import Dispatcher
from halffull.core.gate import GATES
from halffull.core.limits import Limits
from halffull.core.values import Request
from halffull.engines.base import Dialect, Path
from halffull.engines.catalog import ENGINES
from halffull.orderings.catalog import ORDERINGS
from halffull.policies.catalog import POLICIES
from halffull.router.proxy import Proxy, Settings
from halffull.router.requests.priority import CLASS, HEADER, Priority, number

RANK = 77


@pytest.mark.parametrize(
    ("body", "kept", "dropped", "sent", "filled"),
    [
        ({"a": 1}, None, None, RANK, RANK),
        ({"a": 1, "priority": -5}, -5, None, RANK, -5),
        ({"priority": {"odd": [1]}}, {"odd": [1]}, None, RANK, {"odd": [1]}),
    ],
)
def test_each_way(body, kept, dropped, sent, filled):
    text = json.dumps(body).encode()
    results = [json.loads(way.applied(text, RANK)) for way in Priority]
    assert [result.get("priority") for result in results] == [kept, dropped, sent, filled]
    assert all(result.get("a") == body.get("a") for result in results)


def test_a_name_in_escapes_is_the_same_name():
    """Engines take the last of two names that are equal: ours must not be the first of two."""
    body = b'{"\\u0070riority":1,"x":"y"}'
    assert json.loads(Priority.DROP.applied(body, RANK)) == {"x": "y"}
    assert Priority.SEND.applied(body, RANK).count(b"riority") == 1


@pytest.mark.parametrize("body", [b"", b"--boundary\r\npriority", b"[1]", b'{"priority"', b'{"\xff priority":1}'])
def test_what_is_no_json_object_stays(body):
    assert all(way.applied(body, RANK) == body for way in Priority)


def test_other_values_keep_their_bytes():
    body = b'{"n":1.50e1,"big":123456789012345678901234567890,"s":"\\u00e9 priority"}'
    assert Priority.DROP.applied(body, RANK) == body
    assert Priority.SEND.applied(body, RANK) == body[:-1] + b',"priority":77}'


def test_withheld_header():
    assert Priority.KEEP.withheld == Priority.FILL.withheld == frozenset()
    assert Priority.DROP.withheld == Priority.SEND.withheld == {HEADER}


def test_numbers_are_64_bits_wide_and_classes_never_mix():
    keys = [float("-inf"), -1e12, 0.0, 1.7e9, 1.7e9 + 0.001, 1e12, float("inf")]
    numbers = [number(key, group) for group in (-999, 0, 1, 999) for key in keys]
    assert numbers == sorted(numbers)
    assert number(1.7e9 + 0.001, 0) == number(1.7e9, 0) + 1
    assert number(float("inf"), 0) < number(float("-inf"), 1)
    assert all(-(2**63) <= found < 2**63 for found in numbers)
    assert number(0.0, 1) == CLASS


def test_engines_that_order_by_it_are_those_that_may_be_sent_it():
    assert {name for name, adapter in ENGINES.items() if adapter.ranks} == {"vllm", "simulated"}


def test_the_rank_is_the_ordering_s():
    """Smaller keys give smaller numbers; paths of other APIs are left alone."""
    dispatcher = Dispatcher(
        POLICIES["sal"].make(), ORDERINGS["shortest-prompt"].make(), GATES["limit"].make(), random.Random(1), Limits()
    )
    proxy = Proxy(dispatcher, ENGINES["vllm"], Settings("m", priority=Priority.SEND), lambda: 5.0, "id")
    short, long = (Request("r", 0.0, tokens) for tokens in (10, 2000))
    first, second = (json.loads(proxy.ranked(Path(), request, b"{}"))["priority"] for request in (short, long))
    assert second - first == 1_990_000
    assert proxy.ranked(Path(Dialect.ANTHROPIC), short, b"{}") == b"{}"
