"""The bound `oracle`: expected lengths of answers that are the true ones. Called by `simulation`."""

from collections.abc import Iterable

from halffull.core.survival import Survival
from halffull.core.values import Request
from halffull.sim.demand import Demand


class TrueLengths(Survival):
    """Expected output that is the true one: what an oracle would put into the books."""

    def __init__(self, demands: Iterable[Demand]) -> None:
        super().__init__()
        self._tokens = {str(demand.number): demand.output_tokens for demand in demands}

    def left(self, request: Request, so_far: int = 0) -> float:
        """Tokens still to come of the answer to `request`, of which there are `so_far`."""
        return float(max(self._tokens[request.id] - so_far, 0))
