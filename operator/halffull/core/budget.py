"""How often requests may be sent again after a refusal by a living engine, so that a sick fleet is not hammered. Pure."""

WINDOW_S = 10.0


class Budget:
    """At most `percent` of the requests of the last ten seconds, and `minimum` in any case.

    Counted in two half windows, so the window is between five and ten seconds long.
    """

    __slots__ = ("_arrived", "_began", "_minimum", "_percent", "_resent")

    def __init__(self, percent: float, minimum: int) -> None:
        self._percent = percent
        self._minimum = minimum
        self._began = 0.0
        self._arrived = [0, 0]
        self._resent = [0, 0]

    def arrived(self, now: float) -> None:
        """A request came."""
        if now - self._began >= WINDOW_S / 2:
            self._turn(now)
        self._arrived[0] += 1

    def take(self, now: float) -> bool:
        """Whether a request may be sent again; if so, it counts."""
        self._turn(now)
        if sum(self._resent) >= max(self._minimum, sum(self._arrived) * self._percent / 100):
            return False
        self._resent[0] += 1
        return True

    def _turn(self, now: float) -> None:
        halves = int((now - self._began) / (WINDOW_S / 2))
        if halves > 0:
            self._began = now
            self._arrived = [0, self._arrived[0] if halves == 1 else 0]
            self._resent = [0, self._resent[0] if halves == 1 else 0]
