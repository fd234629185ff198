"""What the data path's own experience says of one replica: whether it refuses, fails or is silent. Kept by `dispatch`.

Silence is judged per replica, never per request: a plain answer has no first byte until it is done, and a pre-empted stream
may rest. A silent replica is only suspected; the host looks at the engine itself before anything is moved.
"""

from enum import Enum

PAUSE_FIRST_S = 0.25
PAUSE_LAST_S = 10.0
"""how long a replica that refused takes nothing new: 250 ms doubling to 10 s, or as long as it says"""
PAUSE_MOST_S = 60.0
"""... but no longer: one that says an hour would be out for it, and a fleet that does so with it, whatever happens meanwhile"""
FAILURES_OUT = 3
"""failures in a row that take a replica out"""
OUT_FIRST_S = 1.0
OUT_LAST_S = 60.0
"""how long it stays out before it is looked at again, doubling each time"""
SILENCE_FLOOR_S = 3.0
SILENCE_FACTOR = 4.0
"""a replica is suspected after this many times the longest rest that its streams took lately"""
REST_KEPT = 0.9
"""part of the longest rest that is remembered at the next one"""
PREFILL_FACTOR = 2.0
"""... and not before twice the time that it needs to prefill what it holds"""


class Verdict(Enum):
    """What the data path thinks of a replica that discovery calls ready."""

    WELL = "well"
    SUSPECT = "suspect"
    """silent: takes nothing new until the host has looked"""
    OUT = "out"
    """failed several times in a row, or is dead: takes nothing new until the host has seen it well"""
    TRIAL = "trial"
    """back, with one new request at a time until one has started"""


class Health:
    """The record of one replica."""

    __slots__ = (
        "_out_s", "failures", "heard", "heard_at", "out_until", "pause_s", "paused_until", "rest_s", "silent", "tried",
        "verdict",
    )  # fmt: skip

    def __init__(self) -> None:
        self.verdict = Verdict.WELL
        self.paused_until = 0.0
        self.pause_s = 0.0
        self.failures = 0
        """in a row"""
        self.out_until = 0.0
        """when the host looks at it again"""
        self.heard = False
        """a byte of any stream came since the last tick; set by the host"""
        self.heard_at = 0.0
        self.rest_s = 0.0
        """longest rest between bytes of its streams lately, seconds"""
        self.silent = False
        """no byte of its streams came for longer than it may rest, as of the last tick"""
        self.tried: object = None
        """the request that was sent on trial and is still there; what it held before says nothing; None: there is none"""
        self._out_s = 0.0

    def takes(self, now: float) -> bool:
        """Whether it may be sent something new."""
        if self.paused_until > now:
            return False
        return self.verdict is Verdict.WELL or (self.verdict is Verdict.TRIAL and self.tried is None)

    def refused(self, now: float, for_s: float) -> None:
        """A living engine took no request: pause it for `for_s` seconds, or for its own growing pause if that is longer."""
        self.pause_s = min(max(2 * self.pause_s, PAUSE_FIRST_S), PAUSE_LAST_S)
        self.paused_until = now + max(min(for_s, PAUSE_MOST_S), self.pause_s)

    def failed(self, now: float) -> bool:
        """It could not be reached or broke off; return whether that was once too often, or its trial."""
        self.refused(now, 0.0)
        self.failures += 1
        return self.failures >= FAILURES_OUT or self.verdict is Verdict.TRIAL

    def take_out(self, now: float) -> None:
        """It takes nothing until the host has looked at it again, each time later."""
        self.verdict = Verdict.OUT
        self.silent = False
        self._out_s = min(max(2 * self._out_s, OUT_FIRST_S), OUT_LAST_S)
        self.out_until = now + self._out_s

    def readmit(self, now: float) -> None:
        """The host has seen it well: give it one request."""
        self.verdict = Verdict.TRIAL
        self.paused_until = self.pause_s = 0.0
        self.heard_at = now

    def succeeded(self) -> bool:
        """An answer started; return whether that ends a trial."""
        self.failures = 0
        self.pause_s = 0.0
        if self.verdict is not Verdict.TRIAL:
            return False
        self.verdict = Verdict.WELL
        self._out_s = 0.0
        return True

    def listen(self, now: float, prefill_s: float, *, streams: bool) -> Verdict | None:
        """Judge silence, at each tick; return a new verdict, or None where it stays.

        `prefill_s`: time to prefill what the replica holds; `streams`: whether any request in flight would be heard.
        """
        if self.heard or not streams or not self.heard_at:  # 0: never listened to; silence begins now
            if self.heard and streams and self.heard_at:
                self.rest_s = max(now - self.heard_at, REST_KEPT * self.rest_s)
            self.heard_at, self.heard, self.silent = now, False, False
            if self.verdict is Verdict.SUSPECT:
                self.verdict = Verdict.WELL
                return self.verdict
            return None
        limit_s = max(SILENCE_FLOOR_S, SILENCE_FACTOR * self.rest_s, PREFILL_FACTOR * prefill_s)
        self.silent = now - self.heard_at > limit_s
        if self.silent and self.verdict in {Verdict.WELL, Verdict.TRIAL}:
            self.verdict = Verdict.SUSPECT
            return self.verdict
        return None

    def cleared(self, now: float) -> None:
        """The host looked: the engine works. Wait twice as long before the next suspicion."""
        self.rest_s = max(self.rest_s, (now - self.heard_at) / SILENCE_FACTOR * 2)
        self.heard_at = now
        self.verdict = Verdict.WELL
