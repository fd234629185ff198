"""Tables of what `compare` measured: median and range over rounds, and ratios round by round."""

from statistics import median
from typing import Any

TOO_BUSY = 0.8
OWN = ("halffull", "halffull-never")

Rounds = dict[str, list[dict[str, Any]]]


def costs(per: str, rounds: list[dict[str, Any]]) -> list[float]:
    return [one[f"cpuPer{per.capitalize()}Microseconds"] for one in rounds]


def spread(figures: list[float], digits: int) -> str:
    return f"{median(figures):.{digits}f} ({min(figures):.{digits}f} to {max(figures):.{digits}f})"


def table(name: str, per: str, rounds: Rounds) -> None:
    """Print one case."""
    print(f"\n{name}: CPU microseconds per {per}")
    for peer, measured in rounds.items():
        cost = costs(per, measured)
        line = f"  {peer:<15}{spread(cost, 1):<30}"
        if per != "second" and peer not in OWN and "halffull" in rounds:
            line += f"halffull costs {spread(ratios(per, rounds, 'halffull', peer), 2)}x".ljust(44)
        share = max(one["coreShare"] for one in measured)
        line += f"core {share:.0%}, RSS {median(one['rssMebibytes'] for one in measured):.0f} MiB"
        line += ", TOO BUSY: does not count" if share > TOO_BUSY else ""
        errors = sum(one["errors"] for one in measured)
        print(line + (f", {errors} ERRORS" if errors else "") + late(measured), flush=True)


def ratios(per: str, rounds: Rounds, own: str, peer: str) -> list[float]:
    """Return how many times as much `own` costs, round by round."""
    pairs = zip(costs(per, rounds[own]), costs(per, rounds[peer]), strict=True)
    return [mine / other for mine, other in pairs if other]


def late(measured: list[dict[str, Any]]) -> str:
    """Return how late the event loop was at most in 999 of 1000 cases."""
    bounds = list(measured[0].get("loopDelays", ()))
    if not bounds:
        return ""
    counts = [sum(one["loopDelays"][bound] for one in measured) for bound in bounds]
    if not counts[-1]:
        return ""
    within = next(bound for bound, count in zip(bounds, counts, strict=True) if count >= 0.999 * counts[-1])
    return f", event loop late by at most {within} s in 99.9 % of {counts[-1]:.0f}"


def summary(cases: dict[str, Any]) -> None:
    """Print the ratios of all cases that count."""
    print("\nwhat halffull costs, as a multiple of each, median of rounds")
    for name, case in cases.items():
        rounds, per = case["rounds"], case["per"]
        busy = [peer for peer, measured in rounds.items() if max(one["coreShare"] for one in measured) > TOO_BUSY]
        if busy:
            print(f"  {name}: does not count, too busy: {', '.join(busy)}")
        elif per != "second":
            for own in OWN:
                if own in rounds:
                    others = [peer for peer in rounds if peer not in OWN]
                    told = [f"{peer} {median(ratios(per, rounds, own, peer)):.2f}" for peer in others]
                    print(f"  {name + ', ' + own:<38}{'   '.join(told)}")
