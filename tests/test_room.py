"""How much room pruning has: against evaluation one by one, second differences, and curves made by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import double

from lth.analysis import room
from lth.methods import init, prune
from lth.models import Model


@pytest.fixture
def networks():
    return double(init.kaiming_normal(Model("lenet_300_100", widths=(12, 8)), [0, 1]))


def test_mildly_pruned_copies(networks, toy):
    found = room.mildly_pruned(networks, [0, 0.3], toy.train, toy.test)
    assert found[["network", "share"]].to_numpy().tolist() == [[0, 0], [1, 0], [0, 0.3], [1, 0.3]]
    assert found.loss[:2].tolist() == networks.evaluate(toy.train).loss.tolist()
    copy = prune.apply(networks, prune.masks_at_random(networks, 0.3, 1))
    assert found.error[2:].tolist() == (100 * copy.evaluate(toy.test).error).tolist()


def test_the_bend_is_a_second_difference(networks, toy):
    other = double(init.kaiming_normal(networks.model, [5, 6]))
    length = torch.tensor([0.5, 2.0], dtype=torch.float64)
    far = room.towards(networks, other, length)
    assert (far.theta() - networks.theta()).norm(dim=1).tolist() == pytest.approx(length.tolist())
    way, whole = far.theta() - networks.theta(), other.theta() - networks.theta()
    assert torch.allclose(way / length[:, None], whole / whole.norm(dim=1, keepdim=True))
    step, u = 1e-4, way / length[:, None]
    losses = [networks.with_theta(networks.theta() + k * step * u).evaluate(toy.train).loss for k in (-1, 0, 1)]
    expected = (losses[0] - 2 * losses[1] + losses[2]) / step**2
    assert room.bend(networks, far, length, toy.train) == pytest.approx(expected.to_numpy(), rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(
    "share, distance, network, expected",
    [
        (0.2, 1.0, 0, 1.0),  # below both curves, which are 0.5 and 0.4 there
        (0.45, 1.0, 0, math.nan),  # between them
        (0.6, 1.0, 0, 0.0),
        (0.6, 0.5, 0, 1.0),  # half way 0.75 and 0.7
        (0.2, 1.0, 1, math.nan),  # a curve that is not resolved
        (0.2, 1.0, 2, math.nan),  # one that is not known
    ],
)
def test_sides_of_the_curves(share, distance, network, expected):
    curves = pd.DataFrame(
        {
            "probed": 4,
            "network": np.repeat([0, 1, 2], 2),
            "distance": [0.0, 1.0] * 3,
            "share": [1.0, 0.5, 1.0, 0.5, math.nan, math.nan],
            "upwards": [1.0, 0.4, 1.0, 0.4, 1.0, 0.4],
            "resolved": np.repeat([True, False, True], 2),
        }
    )
    tested = pd.DataFrame({"level": [4], "network": network, "share": share, "distance": distance})
    assert room.allowed(tested, curves) == pytest.approx([expected], nan_ok=True)
