"""Lemma 3.1 against a simulation with random subspaces, and its ingredients against hand-made numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lth.analysis import subspace
from lth.analysis.hessian import Spectrum
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
    losses = np.array([[0.52, 0.61, 0.70], [0.12, 0.19, 0.31]])
    errors = 0.5 * losses + np.array([[0.1], [0.4]])
    found = subspace.loss_to_spare(losses, errors, 0.5)
    assert found.gain == pytest.approx([0.8 - 0.52, 0.2 - 0.12])  # where the lines reach 0.5, less the network's own
    assert found.error == pytest.approx([0, 0], abs=1e-9)
    assert (found.slope, found.explained) == pytest.approx((0.5, 1))
    with pytest.warns(UserWarning, match="does not rise"):
        assert np.isnan(subspace.loss_to_spare(losses, -errors, 0.04).gain).all()


def test_noise_in_the_errors_does_not_flatten_the_line_and_is_told():
    """Simulated: the mean gain is the true one, its scatter the standard error told; the line of the loss over the
    error would be too flat."""
    random, gains, told, flat = np.random.default_rng(3), [], [], []
    losses = np.tile(np.linspace(0.1, 0.2, 12), (3, 1)) + np.array([[0.0], [0.05], [0.1]])
    truth = 2 * losses + np.array([[0.3], [0.2], [0.1]])
    for _ in range(400):
        errors = truth + random.normal(0, 0.03, truth.shape)
        found = subspace.loss_to_spare(losses, errors, 0.65)
        gains.append(found.gain[1])
        told.append(found.error[1])
        dx, dy = (some - some.mean(1, keepdims=True) for some in (losses, errors))
        flat.append((dx * dy).sum() / (dy**2).sum())
    assert np.mean(gains) == pytest.approx((0.65 - 0.2) / 2 - 0.15, abs=0.003)
    assert np.mean(told) == pytest.approx(np.std(gains), rel=0.15)
    assert np.mean(flat) < 0.9 / 2


def spectrum(*values: list[float]) -> Spectrum:
    values = [torch.tensor(some, dtype=torch.float64) for some in values]
    return Spectrum(pd.DataFrame(index=range(len(values))), values, [torch.full_like(v, 1 / len(v)) for v in values])


def test_curves_say_how_far_they_can_be_believed():
    full, half = spectrum([2.0, -2.0], [1.0, 3.0]), spectrum([2.0, 2.0], [1.0, 3.1])
    table = subspace.curves(full, half, [1.0, 1.0], [0.0, 1.0])
    first, second = (table[table.replica == r] for r in (0, 1))
    assert first.share.tolist() == pytest.approx([1, 0.75])  # one of the two directions has no end
    assert first.upwards.tolist() == first.halved.tolist() == pytest.approx([1, 0.5])
    assert not first.resolved.any() and second.resolved.all()
    assert second.share.to_numpy() == pytest.approx(subspace.maximal_ratio([1.0, 3.0], [0.5, 0.5], 1.0, [0.0, 1.0]))
    unknown = subspace.curves(full, full, [np.nan, -1.0], [1.0])
    assert (
        unknown[["share", "upwards", "halved", "lowest", "highest"]].isna().all(axis=None)
        and not unknown.resolved.any()
    )


def test_single_probes_are_told_apart():
    """Two probes of two values each: the outermost of the two curves, and their mean."""
    both = spectrum([1.0, 3.0, 8.0, 8.0])
    table = subspace.curves(both, both, [1.0], [1.0], probes=2)
    single = [subspace.maximal_ratio(v, [0.5, 0.5], 1.0, [1.0])[0] for v in ([1.0, 3.0], [8.0, 8.0])]
    assert (table.lowest[0], table.highest[0]) == pytest.approx((min(single), max(single)))
    assert table.share[0] == pytest.approx(np.mean(single))


def test_curves_do_not_know_the_losss_scale():
    """A loss twice as large has twice the eigenvalues and twice the gain: the same share may go."""
    one = spectrum([0.3, 5.0, -0.1])
    two = Spectrum(one.frame, [2 * v for v in one.values], one.weights)
    radii = [0.5, 2.0]
    pd.testing.assert_frame_equal(subspace.curves(one, one, [0.2], radii), subspace.curves(two, two, [0.4], radii))


def test_bad_input():
    good = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5])
    with pytest.raises(UsageError, match="sum to one, these to 0.9"):
        subspace.maximal_ratio(good[0], torch.tensor([0.5, 0.4]), 1.0, [1.0])
    for epsilon in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="ε must be above 0"):
            subspace.maximal_ratio(*good, epsilon, [1.0])
    with pytest.raises(UsageError, match="at least 0, not -1"):
        subspace.maximal_ratio(*good, 1.0, [2.0, -1.0])
    for losses in (np.ones((2, 3)), np.array([[1.0, 2.0]])):
        with pytest.raises(UsageError, match="several copies of different losses"):
            subspace.loss_to_spare(losses, np.full(losses.shape, 0.1), 0.1)
