"""The demo's picture: recent first tokens by replica, a table on a terminal, lines elsewhere."""

import io

from rich.console import Console

from halffull.local.client import Outcome
from halffull.local.live import Moment, Recent, Screen
from halffull.sim.trace import Call

NAMES = {"b:1": "engine 0", "a:1": "engine 1 (slower)"}


def first_token(recent, replica, due_s, ttft_s):
    recent.first_token(Outcome(Call(0.0, 1, 1), stream=True, due_s=due_s, replica=replica, ttft_s=ttft_s))


def page(name, **more):
    base = {"inFlight": 3, "decoding": 2, "prefillTokens": 1234, "decodeTokens": 5000, "kvTokens": 10_000}
    return {"name": name, **base, **more}


STATUS = {"policy": "sal", "replicas": [page("a:1"), page("b:1", kvTokens=None)]}


def drawn(*, terminal, moments=1, notes=()):
    out = io.StringIO()
    recent = Recent()
    first_token(recent, "a:1", 98.0, 0.5)
    recent.second("round-robin")
    with Screen(NAMES, recent, Console(file=out, force_terminal=terminal, width=120)) as screen:
        for number in range(moments):
            screen.draw(STATUS, Moment(100.0 + number, float(number), f"{number} s"), list(notes))
    return out.getvalue()


def test_old_first_tokens_are_forgotten():
    recent = Recent()
    for due_s, ttft_s in [(10.0, 0.5), (13.0, 0.1), (14.0, 0.3)]:
        first_token(recent, "a", due_s, ttft_s)
    first_token(recent, "b", 14.0, 0.2)

    assert recent.of("a", now=16.0) == [0.1, 0.3]
    assert recent.of_all(now=16.0) == [0.1, 0.2, 0.3]


def test_the_history_has_the_p99_of_each_second_with_a_first_token():
    recent = Recent()
    first_token(recent, "a", 10.0, 0.5)
    recent.second("round-robin")
    recent.second("sal")
    first_token(recent, "a", 11.0, 0.1)
    recent.second("sal")

    assert recent.history == [("round-robin", 0.5), ("sal", 0.1)]


def test_a_terminal_shows_the_table_in_the_order_of_the_engines():
    text = drawn(terminal=True)

    assert text.index("engine 0") < text.index("engine 1 (slower)")
    row = next(line for line in text.splitlines() if "engine 1" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "engine 1 (slower)",
        "2",
        "1",
        "1,234",
        "50%",
        "500 ms",
        "500 ms",
    ]
    assert "█" in text


def test_elsewhere_there_is_a_line_now_and_then():
    text = drawn(terminal=False, moments=9, notes=["edited"])

    assert "\x1b" not in text
    assert text.count("edited") == 1
    assert [line.split()[0] for line in text.splitlines() if "policy sal" in line] == ["4", "8"]
