"""Arrivals as recorded: in order and in the same tempo with every seed, though lengths are permuted."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from halffull.api.scenario import Scenario
from halffull.sim.setting import setting


@pytest.mark.parametrize("seed", range(4))
def test_recorded_arrivals_stay_in_order(tmp_path: Path, seed: int) -> None:
    rows = [f"2023-11-16 18:{n // 60:02}:{n % 60:02},{100 + n},{1 + n % 7}\n" for n in range(700)]
    trace = tmp_path / "azure-2023-conversation.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(rows))
    scenario = {
        "workload": "conv",
        "trace": str(trace),
        "rate": 5.0,
        "contenders": [{"name": "sal", "scheduling": {"policy": "sal"}}],
    }
    demands = setting(Scenario.model_validate(scenario)).demands(seed)
    gaps = [later.arrived - demand.arrived for demand, later in pairwise(demands)]

    assert demands[0].arrived == 0
    assert gaps == pytest.approx([0.2] * 699, rel=0.01)
    assert Counter(demand.prompt_tokens for demand in demands) == Counter(range(100, 800))
    assert ([demand.prompt_tokens for demand in demands] == list(range(100, 800))) is (seed == 0)
