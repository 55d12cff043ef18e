"""Lemma 3.1 against a simulation with random subspaces, and its ingredients against hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lth.analysis import subspace
from lth.errors import UsageError


def meets(values: np.ndarray, epsilon: float, distance: float, dimensions: int, random: np.random.Generator) -> bool:
    """Whether a random affine subspace through a random point at this distance reaches ½ wᵀHw ≤ ε: solved exactly."""
    point = random.normal(size=len(values))
    point *= distance / np.linalg.norm(point)
    basis = random.normal(size=(len(values), dimensions))
    curved = np.sqrt(values)[:, None]
    best = point + basis @ np.linalg.lstsq(curved * basis, -curved[:, 0] * point, rcond=None)[0]
    return 0.5 * values @ best**2 <= epsilon


@pytest.mark.parametrize("distance", [2.0, 3.0])
@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_the_phase_transition_is_where_the_lemma_says(distance, spread):
    """Below d* hardly any subspace meets the ellipsoid, above nearly all do; d* is an upper bound, so not far above."""
    dimensions, epsilon, random = 120, 0.5, np.random.default_rng(1)
    values = np.exp(random.normal(0, spread, dimensions))
    weights = np.full(dimensions, 1 / dimensions)
    (threshold,) = subspace.intersection_threshold(values, weights, dimensions, epsilon, [distance])
    share = {}
    for d in (round(threshold) - 20, round(threshold) + 12):
        share[d] = np.mean([meets(values, epsilon, distance, d, random) for _ in range(40)])
    below, above = share.values()
    assert below < 0.2 and above > 0.8


def test_the_threshold_by_hand():
    """λ = 2, 8 and ε = 1 give r² = 1, ¼; at R = 1 these are ½ and ⅕ of what there is."""
    values, weights = torch.tensor([2.0, 8.0]), torch.tensor([0.5, 0.5])
    assert subspace.intersection_threshold(values, weights, 2, 1.0, [1.0, 0.0]) == pytest.approx([2 - 0.7, 0])
    assert subspace.maximal_ratio(values, weights, 1.0, [1.0, 0.0]) == pytest.approx([0.35, 1])


def test_flat_directions_and_those_that_bend_downwards_are_without_end():
    values, weights = torch.tensor([-3.0, 0.0, 2.0]), torch.tensor([0.2, 0.3, 0.5])
    assert subspace.maximal_ratio(values, weights, 1.0, [1e9]) == pytest.approx([0.5])


@given(
    st.lists(st.floats(0.01, 100), min_size=2, max_size=9), st.floats(0.01, 10), st.floats(0.1, 10), st.floats(1.01, 3)
)
def test_sharper_farther_and_tighter_all_allow_less(values, epsilon, distance, factor):
    weights, values = np.full(len(values), 1 / len(values)), np.array(values)
    (ratio,) = subspace.maximal_ratio(values, weights, epsilon, [distance])
    assert 0 < ratio < 1
    assert subspace.maximal_ratio(values * factor, weights, epsilon, [distance])[0] < ratio
    assert subspace.maximal_ratio(values, weights, epsilon, [distance * factor])[0] < ratio
    assert subspace.maximal_ratio(values, weights, epsilon / factor, [distance])[0] < ratio
    scaled = subspace.maximal_ratio(values / factor**2, weights, epsilon, [distance * factor])
    assert scaled == pytest.approx([ratio])  # R²λ/ε is all that counts


def test_the_loss_to_spare():
    """Two networks on parallel lines: the slope is theirs, not that of the line through both clouds."""
    errors = np.array([[0.02, 0.05, 0.08], [0.06, 0.07, 0.11]])
    losses = 3 * errors + np.array([[0.5], [0.1]])
    assert subspace.loss_to_spare(losses, errors, 0.04) == pytest.approx([0.06, -0.06])
    noisy = losses + np.array([[0.001, -0.002, 0.001], [0, 0.001, -0.001]])
    dummies = np.zeros((6, 3))
    dummies[np.arange(6), 1 + np.repeat([0, 1], 3)] = 1
    dummies[:, 0] = errors.ravel()
    slope = np.linalg.lstsq(dummies, noisy.ravel(), rcond=None)[0][0]
    assert subspace.loss_to_spare(noisy, errors, 0.04) == pytest.approx(slope * (0.04 - errors[:, 0]))
    with pytest.warns(UserWarning, match="does not rise"):
        assert np.isnan(subspace.loss_to_spare(-losses, errors, 0.04)).all()


def test_bad_input():
    good = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5])
    with pytest.raises(UsageError, match="sum to one, these to 0.9"):
        subspace.maximal_ratio(good[0], torch.tensor([0.5, 0.4]), 1.0, [1.0])
    for epsilon in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="ε must be above 0"):
            subspace.maximal_ratio(*good, epsilon, [1.0])
    with pytest.raises(UsageError, match="at least 0, not -1"):
        subspace.maximal_ratio(*good, 1.0, [2.0, -1.0])
    with pytest.raises(UsageError, match="different errors"):
        subspace.loss_to_spare(np.ones((2, 3)), np.full((2, 3), 0.1), 0.1)
