"""Distances between rounds against numpy, pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lth.analysis import landscape, rounds
from lth.errors import UsageError
from lth.methods import init, prune
from lth.models import Model
from lth.population import Population

MODEL = Model("lenet_300_100", (1, 8, 8), 4, widths=(40, 30))


@pytest.fixture
def ladder() -> list[Population]:
    """Three rounds, the masks nested, and the dense initialisation last."""
    start = init.kaiming_normal(MODEL, seeds=[0, 1])
    found = [start.with_theta(init.kaiming_normal(MODEL, seeds=[8, 9]).theta() + 0.05)]
    for level in (2, 3):
        masks = prune.magnitude_masks(found[-1], 0.5)
        found.append(prune.apply(init.kaiming_normal(MODEL, seeds=[10 * level, 10 * level + 1]), masks))
    return [*found, start]


@pytest.mark.parametrize("measure", ["angle", "cosine", "euclidean"])
def test_every_pair_is_compared_in_the_weights_it_shares(ladder, measure):
    found = rounds.distances(ladder, measure)
    assert found.shape == (2, 4, 4) and found.dtype == torch.float64
    assert torch.equal(found, found.mT)
    for r in range(2):
        for i, a in enumerate(ladder):
            for j, b in enumerate(ladder):
                both = np.concatenate([(a.masks[n][r] & b.masks[n][r]).flatten().numpy() for n in a.masks])
                x, y = (
                    np.concatenate([p.params[n][r].flatten().double().numpy() for n in a.masks]) * both for p in (a, b)
                )
                cosine = np.clip(x @ y / np.linalg.norm(x) / np.linalg.norm(y), -1, 1)
                expected = {
                    "angle": 2 / math.pi * np.arccos(cosine),
                    "cosine": 1 - cosine,
                    "euclidean": np.linalg.norm(x - y),
                }[measure]
                assert found[r, i, j].item() == pytest.approx(expected, abs=1e-6)


def test_angles_of_known_pairs(ladder):
    first = ladder[0]
    far = init.kaiming_normal(MODEL, seeds=[50, 51])
    found = rounds.distances([first, first.with_theta(3 * first.theta()), first.with_theta(-first.theta())])
    torch.testing.assert_close(found[:, 0, 1], torch.zeros(2).double(), rtol=0, atol=1e-6)  # scaled
    torch.testing.assert_close(found[:, 0, 2], torch.full((2,), 2.0).double(), rtol=0, atol=1e-6)  # opposite
    unrelated = rounds.distances([init.kaiming_normal(MODEL, seeds=[0, 1]), far])[:, 0, 1]
    assert torch.all((unrelated - 1).abs() < 4 * 2 / math.pi / math.sqrt(64 * 40 + 40 * 30 + 30 * 4))


def test_nothing_shared_is_no_number(ladder):
    first = ladder[0]
    half = {n: torch.zeros_like(m) for n, m in first.masks.items()}
    half["fc1.weight"][:, ::2] = True
    other = {n: m.clone() for n, m in half.items()}
    other["fc1.weight"] = ~half["fc1.weight"]
    found = rounds.distances([prune.apply(first, half), prune.apply(first, other)])
    assert found[:, 0, 1].isnan().all() and torch.all(found[:, 0, 0] == 0)


def test_what_cannot_be_compared_is_refused(ladder):
    with pytest.raises(UsageError, match="as many in each"):
        rounds.distances([ladder[0], ladder[1][[0]]])
    with pytest.raises(UsageError, match="'angle'"):
        rounds.distances(ladder, "l2")


def test_a_line_between_rounds_runs_in_the_larger_mask(ladder):
    first, second = ladder[0], ladder[1]
    for start, end in ((first, second), (second, first)):
        middle = landscape.interpolate(start, end, 0.25)
        assert torch.equal(middle.theta_mask(), first.theta_mask())
        torch.testing.assert_close(middle.theta(), 0.75 * start.theta() + 0.25 * end.theta())
    with pytest.raises(UsageError, match="neither's mask holds the other's"):
        masks = {n: ~m for n, m in second.masks.items()}
        landscape.interpolate(second, prune.apply(first, masks), 0.5)
