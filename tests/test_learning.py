"""Numbers of a history, against histories made so that they are known."""

from __future__ import annotations

import math

import numpy as np
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
    assert table.after_early.tolist() == pytest.approx([-8, -3])  # the same, the latter after its update
    assert table.after_mean.tolist() == pytest.approx([-8, (-4 - 2 + 1) / 3])


def test_changes_are_of_the_norm_at_updates_only():
    updated = history("RigL", [1.0] * 4, [4.0, 9.0, 16.0, 25.0], {50: 4.0, 150: 36.0})
    assert learning.changes(updated)[["step", "change"]].to_numpy().tolist() == [[50, 1], [150, -1]]


@pytest.mark.parametrize("classes, edge", [(10, 20.0), (100, 2.0)])
def test_a_network_learns_that_is_right_twice_as_often_as_one_that_guesses(classes, edge):
    guess = 100 / classes
    found = learning.learns(np.array([guess, 1.2 * guess, edge - 0.01, edge + 0.01, 98.0]), classes)
    assert found.tolist() == [False, False, False, True, True]


def test_flow_without_mask_updates_is_the_one_measured():
    plain = history("dense", [1.0], [0.25], {}).drop(columns="gradient_flow_before")
    assert learning.steady_flow(plain).tolist() == [0.25]
