"""How much room pruning has around a network: along a line, and by the formula of [P, Sec. 3.3]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from lth.analysis import hessian
from lth.data import Split
from lth.methods import prune
from lth.population import Population


def mildly_pruned(solution: Population, shares: Sequence[float], train: Split, test: Split) -> pd.DataFrame:
    """`loss` on training images and test `error` (%) of copies without a random `share` of the weights, by `network`.

    What `subspace.loss_to_spare` is read from, where the first share is 0.
    """
    tables = []
    for number, share in enumerate(shares):
        copy = prune.apply(solution, prune.masks_at_random(solution, share, number))
        told = {"loss": copy.evaluate(train).loss, "error": 100 * copy.evaluate(test).error}
        tables.append(pd.DataFrame({"network": range(len(solution)), "share": share, **told}))
    return pd.concat(tables, ignore_index=True)


def towards(solution: Population, other: Population, length: Tensor) -> Population:
    """As far from the solution as `length`, (R,), in the direction of another network."""
    way = other.theta() - solution.theta()
    return solution.with_theta(solution.theta() + way / way.norm(dim=1, keepdim=True) * length[:, None])


def bend(solution: Population, far: Population, length: Tensor, split: Split) -> np.ndarray:
    """Curvature uᵀHu of the loss on `split`, u the direction of networks that lie as far away as `length`: (R,)."""
    u = (far.theta() - solution.theta()) / length[:, None]
    return (u * hessian.hvp(solution, split, u)).sum(1).cpu().numpy()


def allowed(tested: pd.DataFrame, curves: pd.DataFrame) -> list[float]:
    """What the formula says of each pruning: 1 matches, 0 fails, nan between the curves or where nothing is known.

    tested: `network`, `level`, `share` pruned at once, `distance` that this moved. curves: of `subspace.curves`, with
    `network` and the level `probed`. Eigenvalues below 0 count for 0 in one curve, as if they bent upwards in another:
    what lies on one side of both is told.
    """

    def side(row: pd.Series) -> float:
        curve = curves[(curves.probed == row.level) & (curves.network == row.network)]
        ends = [np.interp(row.distance, curve.distance, curve[name]) for name in ("upwards", "share")]
        if not (curve.resolved.all() and np.isfinite(ends).all()):
            return np.nan
        return 1.0 if row.share < min(ends) else 0.0 if row.share > max(ends) else np.nan

    return [side(row) for row in tested.itertuples()]
