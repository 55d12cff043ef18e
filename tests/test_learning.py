"""Numbers of a history, against histories made so that they are known."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from lth.analysis import learning


def history(network: str, losses: list[float], flows: list[float], before: dict[int, float]) -> pd.DataFrame:
    """A row every 50 steps."""
    steps = [50 * i for i in range(len(flows))]
    return pd.DataFrame(
        {
            "method": network,
            "step": steps,
            "loss": losses,
            "gradient_flow": flows,
            "gradient_flow_before": [before.get(step, math.nan) for step in steps],
        }
    )


def test_summary():
    chance = math.log(10)
    late = history("late", [math.nan, chance, 0.91 * chance, 0.89 * chance, 1], [1e-4, 1e9, 1e-2, 1e9, 10], {100: 1e-3})
    never = history("never", [math.nan] + [chance] * 4, [1e-8] * 5, {})
    table = learning.summary(pd.concat([never, late]), ["method"], every=100, early=100, classes=10)
    assert table.method.tolist() == ["never", "late"]
    assert table.onset.tolist() == [200, 150]
    assert table.flow_start.tolist() == pytest.approx([-8, -4])
    assert table.flow_early.tolist() == pytest.approx([-8, -3.5])  # steps 0 and 100, the latter before its update
    assert table.flow_mean.tolist() == pytest.approx([-8, -2])  # and step 200


def test_flow_without_mask_updates_is_the_one_measured():
    plain = history("dense", [1.0], [0.25], {}).drop(columns="gradient_flow_before")
    assert learning.steady_flow(plain).tolist() == [0.25]
