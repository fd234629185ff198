"""Requests of clients that go to an engine directly, past the routers. Called by `simulation`."""

from random import Random

from halffull.api.scenario import Others as OthersDocument
from halffull.sim.demand import Demand
from halffull.sim.engine_model import EngineSequence
from halffull.sim.setting import Setting


class Others:
    """One such source of load: requests like the workload's, at random times."""

    def __init__(self, setting: Setting, document: OthersDocument, seed: int) -> None:
        self.replica = document.replica
        self._calls = setting.calls
        self._rate = document.load * setting.saturation
        self._rng = Random(f"others {document.replica} {seed}")

    def pause_s(self) -> float:
        """Return the time to the next request."""
        return self._rng.expovariate(self._rate)

    def sequence(self, now: float) -> EngineSequence:
        """Return the next request, as the engine sees it; no router knows of it."""
        call = self._rng.choice(self._calls)
        demand = Demand(
            number=-1,
            arrived=now,
            prompt_tokens=call.prompt_tokens,
            output_tokens=call.output_tokens,
            blocks=(),
            estimate=call.prompt_tokens,
            stream=True,
            priority=0,
            caller="",
            session="",
            router=0.0,
            replica=self.replica,
        )
        return EngineSequence(call.prompt_tokens, call.output_tokens, owner=demand)
