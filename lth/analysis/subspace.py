"""When does a random subspace meet a sublevel set? The limits of pruning from the Hessian's spectrum [P, Sec. 3.3].

Near a minimum the loss is a quadratic bowl, and the networks with a loss of at most ε more fill an ellipsoid whose
radii are r_i = √(2ε/λ_i). Pruning a share f of D weights leaves a subspace of (1 − f)·D dimensions, at the distance R
that the projection moved. Is some network in it still inside the ellipsoid? For a random subspace the answer changes
from yes to no at one number of dimensions, the intersection threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lth.errors import UsageError


def maximal_ratio(values: Tensor, weights: Tensor, epsilon: float, distance: Sequence[float]) -> np.ndarray:
    """The largest share f of the weights that random pruning may take: (len(distance),), each from 0 to 1.

    (1 − f)·D > d* means f < 1 − d*/D = (1/D) Σ_i r_i²/(R² + r_i²): the share of all dimensions that the ellipsoid
    fills, seen from the distance R [P, Eq. C.4].

    values, weights: eigenvalues λ_i and the share that each stands for, (n,) both, as in `hessian.Spectrum`. Where the
    landscape does not bend upwards, λ ≤ 0, the ellipsoid has no end: r_i = ∞. distance: any number of R.
    Raises UsageError for weights that do not sum to one, ε ≤ 0, and R < 0.
    """
    share, curvature = np.asarray(weights, float), np.asarray(values, float).clip(min=0)
    radius = np.atleast_1d(np.asarray(distance, float))
    if share.shape != curvature.shape or (share < 0).any() or not abs(share.sum() - 1) < 1e-3:
        raise UsageError(f"a spectrum's weights sum to one, these to {share.sum():.4g}")
    if not epsilon > 0:
        raise UsageError(f"ε must be above 0, not {epsilon:g}: no network has less loss than the minimum")
    if not (radius >= 0).all():
        raise UsageError(f"a distance is at least 0, not {radius.min():g}")
    return (share / (1 + radius[:, None] ** 2 * curvature / (2 * epsilon))).sum(1)  # r²/(R² + r²), without ∞/∞


def intersection_threshold(
    values: Tensor, weights: Tensor, dimensions: int, epsilon: float, distance: Sequence[float]
) -> np.ndarray:
    """d* = D − Σ_i r_i²/(R² + r_i²), for each distance R: (len(distance),) [P, Lemma 3.1].

    A random affine subspace of d dimensions at a distance R from the minimum meets the sublevel set with high
    probability if d > d*, and hardly ever if d < d*; d* is an approximate upper bound. Arguments as in `maximal_ratio`.
    """
    return dimensions * (1 - maximal_ratio(values, weights, epsilon, distance))


def matching_loss(losses: Sequence[float], errors: Sequence[float], error: float) -> float:
    """The training loss that goes with a test error, from a straight line through pairs of both [P, App. B].

    Raises UsageError where the pairs give no rising line.
    """
    x, y = np.asarray(errors, float), np.asarray(losses, float)
    if len(x) < 2 or np.ptp(x) == 0:
        raise UsageError("a line needs two different errors or more: prune at more ratios")
    slope, start = np.polyfit(x, y, 1)
    if slope <= 0:
        raise UsageError(f"the loss does not rise with the error (slope {slope:.3g}): prune more, up to higher errors")
    return float(start + slope * error)
