"""When does a random subspace meet a sublevel set? The limits of pruning from the Hessian's spectrum [P, Sec. 3.3].

Near a minimum the loss is a quadratic bowl, and the networks with a loss of at most ε more fill an ellipsoid whose
radii are r_i = √(2ε/λ_i). Pruning a share f of D weights leaves a subspace of (1 − f)·D dimensions, at the distance R
that the projection moved. Is some network in it still inside the ellipsoid? For a random subspace the answer changes
from yes to no at one number of dimensions, the intersection threshold.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from lth.analysis.hessian import Spectrum
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


class Spare(NamedTuple):
    """ε_train of each network with its standard error, and the line that it is read from.

    gain, error: (R,) in the loss's units. slope: of the error over the loss, the same for all. explained: the share of
    the errors' variance within networks that the line explains, R².
    """

    gain: np.ndarray
    error: np.ndarray
    slope: float
    explained: float


def loss_to_spare(losses: np.ndarray, errors: np.ndarray, error: float) -> Spare:
    """ε_train: how much training loss each network may gain until its test error is `error` [P, App. B].

    losses, errors: (R, n) of n copies of each network, of which a few weights were pruned; the first is the network
    itself. Within a network both rise together: error = a_r + b·loss with one slope for all. The test error is the
    noisy one of the two (a network near the edge gets an image right or wrong by chance), so it is the one that is
    explained: noise in what explains would flatten the line. Standard errors are those of a and b (delta method). Gains
    are negative where a network's error is larger already; nan for a network with an error or loss that is no number,
    and for all, with a warning, where the error does not rise with the loss. Raises UsageError where all losses of each
    network are the same, and below two copies more than networks.
    """
    x, y = np.asarray(losses, float), np.asarray(errors, float)
    known = np.isfinite(x + y).all(1)
    dx, dy = (some[known] - some[known].mean(1, keepdims=True) for some in (x, y))
    free = dx.size - len(dx) - 1
    if not np.ptp(x[known], axis=1).any() or free < 1:
        raise UsageError("a slope needs several copies of different losses: prune more of the weights")
    slope = float((dx * dy).sum() / (dx**2).sum())
    rest = float(((dy - slope * dx) ** 2).sum())
    explained = 1 - rest / float((dy**2).sum()) if dy.any() else 0.0
    if slope <= 0:
        warnings.warn(f"the error does not rise with the loss (slope {slope:.3g}), so ε_train is unknown", stacklevel=2)
        return Spare(*np.full((2, len(x)), np.nan), slope, explained)
    ahead = (error - y.mean(1)) / slope  # of the mean loss of a network's copies
    variance = rest / free * (1 / x.shape[1] + ahead**2 / (dx**2).sum()) / slope**2
    return Spare(ahead + x.mean(1) - x[:, 0], np.sqrt(variance), slope, explained)


def curves(
    full: Spectrum,
    half: Spectrum,
    gains: Sequence[float],
    distance: Sequence[float],
    probes: int = 1,
    tolerance: float = 0.05,
) -> pd.DataFrame:
    """`maximal_ratio` of each network over the distance, and how far it can be believed.

    full, half: spectra from all and from half of the steps of Lanczos' method, the same one twice if it is exact.
    gains: ε_train of each network, (R,); where it is not above 0 the columns are nan. Columns: `replica`, `distance`,
    `share`; `upwards`, where eigenvalues below 0 count as if they bent upwards, as they count for 0 in `share`;
    `halved`, from `half`; `lowest` and `highest`, of the curves from single ones of the `probes` that `full` is made
    of; `resolved`, whether `share` and `halved` are nowhere further apart than `tolerance`.
    """
    distance = np.asarray(distance, float)
    tables = []
    for r, gain in enumerate(gains):
        told = {name: np.full(len(distance), np.nan) for name in ("share", "upwards", "halved", "lowest", "highest")}
        if gain > 0:
            told["share"] = maximal_ratio(full.values[r], full.weights[r], gain, distance)
            told["upwards"] = maximal_ratio(full.values[r].abs(), full.weights[r], gain, distance)
            parts = (kind[r].reshape(probes, -1) for kind in (full.values, full.weights))
            single = [maximal_ratio(v, probes * w, gain, distance) for v, w in zip(*parts, strict=True)]
            told |= {"lowest": np.min(single, axis=0), "highest": np.max(single, axis=0)}
            told["halved"] = maximal_ratio(half.values[r], half.weights[r], gain, distance)
        apart = np.abs(told["share"] - told["halved"]).max()
        tables.append(pd.DataFrame({"replica": r, "distance": distance, **told, "resolved": bool(apart <= tolerance)}))
    return pd.concat(tables, ignore_index=True)
