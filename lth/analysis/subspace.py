"""When does a random subspace meet a sublevel set? The limits of pruning from the Hessian's spectrum [P, Sec. 3.3].

Near a minimum the loss is a quadratic bowl, and the networks with a loss of at most ε more fill an ellipsoid whose
radii are r_i = √(2ε/λ_i). Pruning a share f of D weights leaves a subspace of (1 − f)·D dimensions, at the distance R
that the projection moved. Is some network in it still inside the ellipsoid? For a random subspace the answer changes
from yes to no at one number of dimensions, the intersection threshold.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lth.errors import UsageError


def maximal_ratio(values: Tensor, weights: Tensor, epsilon: float, distance: Sequence[float]) -> np.ndarray:
    """The largest share f of the weights that random pruning may take: (len(distance),), each from 0 to 1.

    (1 − f)·D > d* means f < 1 − d*/D = (1/D) Σ_i r_i²/(R² + r_i²): the share of all dimensions that the ellipsoid
    fills, seen from the distance R [P, Eq. C.4].

    values, weights: eigenvalues λ_i and the share that each stands for, (n,) both, as in `hessian.Spectrum`. Where the
    landscape does not bend upwards, λ ≤ 0, the ellipsoid has no end: r_i = ∞. distance: any number of R; where it
    is nan, so is the share. Raises UsageError for weights that do not sum to one, ε ≤ 0, and R < 0.
    """
    share, curvature = np.asarray(weights, float), np.asarray(values, float).clip(min=0)
    radius = np.atleast_1d(np.asarray(distance, float))
    if share.shape != curvature.shape or (share < 0).any() or not abs(share.sum() - 1) < 1e-3:
        raise UsageError(f"a spectrum's weights sum to one, these to {share.sum():.4g}")
    if not epsilon > 0:
        raise UsageError(f"ε must be above 0, not {epsilon:g}: no network has less loss than the minimum")
    if (radius < 0).any():
        raise UsageError(f"a distance is at least 0, not {np.nanmin(radius):g}")
    return (share / (1 + radius[:, None] ** 2 * curvature / (2 * epsilon))).sum(1)  # r²/(R² + r²), without ∞/∞


def intersection_threshold(
    values: Tensor, weights: Tensor, dimensions: int, epsilon: float, distance: Sequence[float]
) -> np.ndarray:
    """d* = D − Σ_i r_i²/(R² + r_i²), for each distance R: (len(distance),) [P, Lemma 3.1].

    A random affine subspace of d dimensions at a distance R from the minimum meets the sublevel set with high
    probability if d > d*, and hardly ever if d < d*; d* is an approximate upper bound. Arguments as in `maximal_ratio`.
    """
    return dimensions * (1 - maximal_ratio(values, weights, epsilon, distance))


def loss_to_spare(losses: np.ndarray, errors: np.ndarray, error: float) -> np.ndarray:
    """ε_train: how much training loss each network may gain until its test error is `error`: (R,) [P, App. B].

    losses, errors: (R, n) of n copies of each network, of which a few weights were pruned; the first is the network
    itself. Within a network both rise together: the slope of the straight line through all copies, with a level of
    its own for each network, says how much loss goes with how much error. Negative where a network's error is larger
    already. nan for a network with an error or loss that is no number, and for all of them, with a warning, where the
    loss does not rise with the error. Raises UsageError where all errors of
    each network are the same.
    """
    x, y = np.asarray(errors, float), np.asarray(losses, float)
    known = np.isfinite(x + y).all(1)
    dx, dy = (some[known] - some[known].mean(1, keepdims=True) for some in (x, y))
    if not np.ptp(x[known], axis=1).any():
        raise UsageError("a slope needs different errors: prune more of the weights")
    slope = (dx * dy).sum() / (dx**2).sum()
    if slope <= 0:
        warnings.warn(f"the loss does not rise with the error (slope {slope:.3g}), so ε_train is unknown", stacklevel=2)
        return np.full(len(x), np.nan)
    return slope * (error - x[:, 0])
